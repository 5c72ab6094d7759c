//! Price lists: what a quantity costs in credits (SPEC 8).
//!
//! A document is typed by serde and checked when it is defined; whatever is wrong with it is refused with the path of the mistake.
//! Prices are exact and rounded once, half to even, to 12 decimals.

use std::marker::PhantomData;

use num_bigint::BigInt;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::amount::{Amount, half_even};
use super::json;
use super::wallet::codes;
use crate::error::{Error, Result};

/// A price list that was checked.
#[derive(Debug, Clone, PartialEq)]
pub enum Pricing {
    ByQuantity(QuantityPricing),
    /// The first rate all of whose properties are equal to the event's, else the default.
    Matrix {
        rates: Vec<Rate>,
        default: Option<Box<Pricing>>,
    },
}

/// A price list that depends on the quantity alone.
#[derive(Debug, Clone, PartialEq)]
pub enum QuantityPricing {
    PerUnit {
        credits: Amount,
    },
    /// Each started package of `size` units.
    Package {
        size: Amount,
        credits: Amount,
    },
    /// Each unit at the price of the tier it falls into.
    Graduated(Vec<Tier>),
    /// All units at the price of the tier that the whole quantity falls into.
    Volume(Vec<Tier>),
}

/// Units up to and including a quantity, at a price of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Tier {
    /// None for the last tier.
    pub up_to: Option<Amount>,
    pub credits: Amount,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    pub matching: Map<String, Value>,
    pub pricing: Pricing,
}

/// A document as serde reads it; which parts belong to which model is checked afterwards.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    model: Model,
    credits: Option<Number>,
    size: Option<Number>,
    tiers: Option<Vec<Object<TierDocument>>>,
    rates: Option<Vec<Object<RateDocument>>>,
    default: Option<Box<Object<Document>>>,
}

codes! {
    Model {
        PerUnit = "per_unit",
        Package = "package",
        Graduated = "graduated",
        Volume = "volume",
        Matrix = "matrix",
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let code = String::deserialize(deserializer)?;
        let unknown = || D::Error::custom("expected one of per_unit, package, graduated, volume, matrix");
        Self::from_code(&code).ok_or_else(unknown)
    }
}

/// What must be written as an object: serde would read a struct from an array as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }
        deserializer.deserialize_map(Members(PhantomData)).map(Object)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierDocument {
    up_to: Option<Number>,
    credits: Number,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateDocument {
    #[serde(rename = "match")]
    matching: Map<String, Value>,
    pricing: Object<Document>,
}

/// A number of zero or more, written as a JSON number or as a string.
struct Number(Amount);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let value = Value::deserialize(deserializer)?;
        let text = match &value {
            Value::String(text) => text.as_str(),
            Value::Number(number) => number.as_str(),
            _ => return Err(D::Error::custom("expected a number, or a string that holds one")),
        };
        let amount = Amount::from_decimal(text).map_err(D::Error::custom)?;
        if amount.is_negative() {
            return Err(D::Error::custom("it is negative"));
        }
        Ok(Number(amount))
    }
}

const ARGUMENT: &str = "pricing";

fn mistake(path: &str, problem: impl std::fmt::Display) -> Error {
    let place = if path.is_empty() || path == "." { String::new() } else { format!("{}: ", path.trim_start_matches('.')) };
    Error::invalid(
        ARGUMENT,
        format!("{place}{problem}"),
        r#"Pass a document such as {"model":"per_unit","credits":"0.5"}; the reference lists the models and their parts."#,
    )
}

impl Pricing {
    /// Reads and checks a document; 22023 with the path of the mistake.
    pub fn parse(document: &str) -> Result<Self> {
        let deserializer = &mut serde_json::Deserializer::from_str(document);
        match serde_path_to_error::deserialize::<_, Object<Document>>(deserializer) {
            Ok(Object(document)) => Self::check(document, ""),
            Err(error) => {
                let problem = error.inner().to_string();
                // Lines and columns are those of the text that PostgreSQL made of the document.
                let problem = problem.split_once(" at line ").map_or(problem.as_str(), |(problem, _)| problem);
                Err(mistake(&error.path().to_string(), problem))
            }
        }
    }

    fn check(document: Document, path: &str) -> Result<Self> {
        let Document { model, credits, size, tiers, rates, default } = document;
        let uses = |part: &str| match model {
            Model::PerUnit => part == "credits",
            Model::Package => matches!(part, "credits" | "size"),
            Model::Graduated | Model::Volume => part == "tiers",
            Model::Matrix => matches!(part, "rates" | "default"),
        };
        for (part, is_given) in [
            ("credits", credits.is_some()),
            ("size", size.is_some()),
            ("tiers", tiers.is_some()),
            ("rates", rates.is_some()),
            ("default", default.is_some()),
        ] {
            if is_given && !uses(part) {
                return Err(mistake(&format!("{path}.{part}"), "it is no part of this model"));
            }
        }
        let missing = |part: &str| mistake(&format!("{path}.{part}"), "it is missing");
        let credits = || credits.map(|number| number.0).ok_or_else(|| missing("credits"));
        let tiers = || check_tiers(tiers.ok_or_else(|| missing("tiers"))?, path);
        Ok(match model {
            Model::PerUnit => Self::ByQuantity(QuantityPricing::PerUnit { credits: credits()? }),
            Model::Package => {
                let size = size.ok_or_else(|| missing("size"))?.0;
                if size.is_zero() {
                    return Err(mistake(&format!("{path}.size"), "it is not above zero"));
                }
                Self::ByQuantity(QuantityPricing::Package { size, credits: credits()? })
            }
            Model::Graduated => Self::ByQuantity(QuantityPricing::Graduated(tiers()?)),
            Model::Volume => Self::ByQuantity(QuantityPricing::Volume(tiers()?)),
            Model::Matrix => {
                let rates = rates.ok_or_else(|| missing("rates"))?;
                if rates.is_empty() && default.is_none() {
                    return Err(mistake(&format!("{path}.rates"), "it is empty, and there is no default"));
                }
                let rate =
                    |(index, Object(RateDocument { matching, pricing: Object(pricing) })): (usize, Object<RateDocument>)| {
                        Ok(Rate { matching, pricing: Self::check(pricing, &format!("{path}.rates[{index}].pricing"))? })
                    };
                let rates = rates.into_iter().enumerate().map(rate).collect::<Result<_>>()?;
                let default = default.map(|document| Self::check(document.0, &format!("{path}.default"))).transpose()?;
                Self::Matrix { rates, default: default.map(Box::new) }
            }
        })
    }

    /// The list for an event of these properties, and the name of the rate that matched: the rates' properties as JSON, from the
    /// outer to the inner one, empty without a matrix. None if no rate matches and there is no default.
    pub fn select(&self, properties: &Map<String, Value>) -> Option<(&QuantityPricing, String)> {
        let mut pricing = self;
        let mut rate_name = String::new();
        loop {
            let (rates, default) = match pricing {
                Self::ByQuantity(pricing) => return Some((pricing, rate_name)),
                Self::Matrix { rates, default } => (rates, default),
            };
            if !rate_name.is_empty() {
                rate_name.push('/');
            }
            match rates.iter().find(|rate| has_all(properties, &rate.matching)) {
                Some(rate) => {
                    rate_name.push_str(&json::canonical(&rate.matching));
                    pricing = &rate.pricing;
                }
                None => {
                    rate_name.push_str("default");
                    pricing = default.as_ref()?;
                }
            }
        }
    }
}

/// Whether properties have all these values.
pub fn has_all(properties: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    wanted.iter().all(|(name, value)| properties.get(name).is_some_and(|other| json::equal(value, other)))
}

fn check_tiers(documents: Vec<Object<TierDocument>>, path: &str) -> Result<Vec<Tier>> {
    let count = documents.len();
    if count == 0 {
        return Err(mistake(&format!("{path}.tiers"), "it is empty"));
    }
    let mut below = Amount::ZERO;
    let mut tiers = Vec::with_capacity(count);
    for (index, Object(TierDocument { up_to, credits })) in documents.into_iter().enumerate() {
        let here = format!("{path}.tiers[{index}].up_to");
        let up_to = up_to.map(|number| number.0);
        match up_to {
            Some(_) if index + 1 == count => return Err(mistake(&here, "the last tier has no end")),
            None if index + 1 < count => return Err(mistake(&here, "it is missing: only the last tier has no end")),
            Some(up_to) if up_to <= below => {
                return Err(mistake(&here, format!("{up_to} is not above {below}, where the tier begins")));
            }
            _ => below = up_to.unwrap_or(below),
        }
        tiers.push(Tier { up_to, credits: credits.0 });
    }
    Ok(tiers)
}

impl QuantityPricing {
    /// What a quantity, zero or more, costs; 22003 from 10^16 credits on.
    pub fn price(&self, quantity: Amount) -> Result<Amount> {
        let priced = match self {
            Self::PerUnit { credits } => rounded(&[(quantity, *credits)]),
            Self::Package { size, credits } => {
                let packages = (quantity.units() + size.units() - 1) / size.units();
                packages.checked_mul(credits.units()).map(Amount::from_units)
            }
            Self::Graduated(tiers) => {
                let mut below = Amount::ZERO;
                let mut portions = Vec::with_capacity(tiers.len());
                for tier in tiers {
                    let end = tier.up_to.map_or(quantity, |up_to| up_to.min(quantity));
                    if end <= below {
                        break;
                    }
                    portions.push((end - below, tier.credits));
                    below = end;
                }
                rounded(&portions)
            }
            Self::Volume(tiers) => {
                let tier = tiers.iter().find(|tier| tier.up_to.is_none_or(|up_to| quantity <= up_to));
                rounded(&[(quantity, tier.map_or(Amount::ZERO, |tier| tier.credits))])
            }
        };
        const WHAT: &str = "the price of the usage";
        priced.ok_or_else(|| Amount::too_large(WHAT))?.in_range(WHAT)
    }
}

/// The sum of quantities times prices, rounded once.
fn rounded(portions: &[(Amount, Amount)]) -> Option<Amount> {
    const UNITS_PER_CREDIT: i128 = Amount::from_credits(1).units();
    let small = portions
        .iter()
        .try_fold(0_i128, |sum, (quantity, credits)| sum.checked_add(quantity.units().checked_mul(credits.units())?));
    if let Some(exact) = small.filter(|sum| sum % UNITS_PER_CREDIT == 0) {
        return Some(Amount::from_units(exact / UNITS_PER_CREDIT));
    }
    let product = |(quantity, credits): &(Amount, Amount)| BigInt::from(quantity.units()) * credits.units();
    let exact: BigInt = portions.iter().map(product).sum();
    i128::try_from(half_even(exact, &BigInt::from(UNITS_PER_CREDIT))).ok().map(Amount::from_units)
}

#[cfg(test)]
mod tests;
