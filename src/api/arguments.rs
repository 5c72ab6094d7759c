//! Arguments and results: how SQL values cross.
//!
//! An argument arrives as an opaque datum and is read only here, so that whatever is wrong with it becomes an error that names the
//! argument, never a panic of a decoder. Nothing is STRICT: a null that is not allowed is an error, not a silent null.

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, UnboxDatum};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, IntoDatum, pg_sys};
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::domain::amount::Amount;
use crate::domain::invoice;
use crate::domain::json;
use crate::domain::metering::Event;
use crate::domain::names::{CustomerId, EventName, TransactionId, WalletCode, checked_name};
use crate::domain::pricing::Pricing;
use crate::domain::time::{Interval, Timestamp};
use crate::error::{Error, Result};
use crate::storage::codec::{self, Codec, JSONB_BYTES_MAX, JsonbText};

macro_rules! sql_type {
    ($type:ident, $sql:literal) => {
        // SAFETY: the type crosses as the SQL type named.
        unsafe impl SqlTranslatable for $type {
            const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!($type);
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal($sql));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal($sql)));
        }
    };
}

macro_rules! argument_types {
    ($($(#[$doc:meta])* $type:ident = $sql:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $type(pg_sys::Datum);

        sql_type!($type, $sql);

        impl FromDatum for $type {
            unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
                (!is_null).then_some(Self(datum))
            }
        }

        // SAFETY: the datum is kept as it is.
        unsafe impl UnboxDatum for $type {
            type As<'dat> = Self where Self: 'dat;
            unsafe fn unbox<'dat>(datum: Datum<'dat>) -> Self where Self: 'dat {
                Self(datum.sans_lifetime())
            }
        }

        // SAFETY: as above.
        unsafe impl<'fcx> ArgAbi<'fcx> for $type {
            unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
                // SAFETY: pgrx calls this for arguments that are not null.
                match unsafe { arg.unbox_arg_using_from_datum() } {
                    Some(value) => value,
                    None => panic!("a null argument was unboxed"),
                }
            }
        }
    )*};
}

argument_types! {
    NumericArgument = "numeric";
    TimeArgument = "timestamptz";
    IntervalArgument = "interval";
    JsonbArgument = "jsonb";
    TextsArgument = "text[]";
    UuidArgument = "uuid";
}

impl JsonbArgument {
    /// As it came, to be stored unchanged.
    pub fn datum(self) -> pg_sys::Datum {
        self.0
    }
}

/// A jsonb result, as text.
#[derive(Debug, Clone)]
pub struct JsonText(pub String);

macro_rules! result_types {
    ($($type:ident = $sql:literal, $oid:ident, $into:expr;)*) => {$(
        sql_type!($type, $sql);

        impl IntoDatum for $type {
            fn into_datum(self) -> Option<pg_sys::Datum> {
                $into(self)
            }

            fn type_oid() -> pg_sys::Oid {
                pg_sys::$oid
            }
        }

        // SAFETY: the datum is of the SQL type named.
        unsafe impl BoxRet for $type {
            unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
                match self.into_datum() {
                    // SAFETY: as above.
                    Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
                    None => fcinfo.return_null(),
                }
            }
        }
    )*};
}

result_types! {
    Amount = "numeric", NUMERICOID, |amount: Amount| Some(amount.encode());
    // Never is shown as null (SPEC 2).
    Timestamp = "timestamptz", TIMESTAMPTZOID, |at: Timestamp| (!at.is_never()).then(|| at.encode());
    JsonText = "jsonb", JSONBOID, |json: JsonText| json_datum(&json.0);
}

fn json_datum(json: &str) -> Option<pg_sys::Datum> {
    let json = std::ffi::CString::new(json).ok()?;
    // SAFETY: jsonb_in takes a C string.
    unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(json.as_ptr()))]) }
}

/// A uuid result.
pub fn uuid(id: Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*id.as_bytes())
}

/// The argument's value, or *null argument*.
pub fn required<T>(argument: &'static str, value: Option<T>) -> Result<T> {
    value.ok_or(Error::NullArgument { argument })
}

/// Any exact amount in range, negative ones too.
pub fn signed_amount(argument: &'static str, value: Option<NumericArgument>) -> Result<Amount> {
    // SAFETY: a numeric argument.
    let amount = unsafe { codec::amount(required(argument, value)?.0) };
    amount.map_err(|error| error.error(argument, ""))?.in_range(argument)
}

/// An amount that is zero or more.
pub fn amount_or_zero(argument: &'static str, value: Option<NumericArgument>) -> Result<Amount> {
    not_negative(argument, signed_amount(argument, value)?)
}

/// The amount, if it is zero or more.
pub fn not_negative(argument: &'static str, amount: Amount) -> Result<Amount> {
    if amount.is_negative() {
        return Err(Error::invalid(argument, format!("{amount} is negative"), "Pass zero or more."));
    }
    Ok(amount)
}

/// An amount above zero.
pub fn amount(argument: &'static str, value: Option<NumericArgument>) -> Result<Amount> {
    let amount = signed_amount(argument, value)?;
    if !amount.is_positive() {
        return Err(Error::invalid(argument, format!("{amount} is not above zero"), "Pass an amount above zero."));
    }
    Ok(amount)
}

/// An argument that may be null.
pub fn optional<T, A>(
    argument: &'static str,
    value: Option<A>,
    check: impl FnOnce(&'static str, Option<A>) -> Result<T>,
) -> Result<Option<T>> {
    match value {
        None => Ok(None),
        value => check(argument, value).map(Some),
    }
}

pub fn customer_id(value: Option<&str>) -> Result<CustomerId> {
    CustomerId::checked("customer_id", required("customer_id", value)?)
}

pub fn wallet_code(argument: &'static str, value: Option<&str>) -> Result<WalletCode> {
    WalletCode::checked(argument, required(argument, value)?)
}

pub fn event_name(value: Option<&str>) -> Result<Option<EventName>> {
    value.map(|name| EventName::checked("event_name", name)).transpose()
}

pub fn key(value: Option<&str>) -> Result<Option<TransactionId>> {
    value.map(|key| TransactionId::checked("idempotency_key", key)).transpose()
}

pub fn name(argument: &'static str, value: Option<&str>) -> Result<String> {
    checked_name(argument, required(argument, value)?)
}

/// An instant of the years 1970 to 9999.
pub fn instant(argument: &'static str, value: Option<TimeArgument>) -> Result<Timestamp> {
    // SAFETY: a timestamptz argument.
    unsafe { Timestamp::decode(required(argument, value)?.0) }.in_range(argument)
}

/// An instant, or `infinity` for never.
pub fn expiry(argument: &'static str, value: Option<TimeArgument>) -> Result<Timestamp> {
    // SAFETY: a timestamptz argument.
    let at = unsafe { Timestamp::decode(required(argument, value)?.0) };
    if at.is_never() { Ok(at) } else { at.in_range(argument) }
}

/// A span from zero to 100 years.
pub fn interval_or_zero(argument: &'static str, value: Option<IntervalArgument>) -> Result<Interval> {
    // SAFETY: an interval argument.
    unsafe { Interval::decode(required(argument, value)?.0) }.in_range(argument)
}

/// A span above zero.
pub fn interval(argument: &'static str, value: Option<IntervalArgument>) -> Result<Interval> {
    let interval = interval_or_zero(argument, value)?;
    if interval.is_zero() {
        return Err(Error::invalid(argument, "it is zero", "Pass an interval above zero, such as '30 days'."));
    }
    Ok(interval)
}

pub fn id(argument: &'static str, value: Option<UuidArgument>) -> Result<Uuid> {
    // SAFETY: a uuid argument.
    Ok(unsafe { Uuid::decode(required(argument, value)?.0) })
}

/// An ISO 4217 code.
pub fn currency(argument: &'static str, value: Option<&str>) -> Result<String> {
    let code = name(argument, value)?;
    if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(code);
    }
    let shown: String = code.chars().take(10).collect();
    Err(Error::invalid(argument, format!("\"{shown}\" is no currency code"), "Pass an ISO 4217 code such as 'USD'."))
}

/// A price and its currency: both or neither.
pub fn price(unit_price: Option<NumericArgument>, currency_code: Option<&str>) -> Result<(Option<Amount>, Option<String>)> {
    let unit_price = optional("unit_price", unit_price, amount_or_zero)?;
    let code = optional("currency", currency_code, currency)?;
    invoice::check_price(unit_price.is_some(), code.is_some())?;
    Ok((unit_price, code))
}

const REASON_BYTES_MAX: usize = 1000;

/// A JSON object of at most 64 kB, as text.
pub fn metadata(argument: &'static str, value: Option<JsonbArgument>) -> Result<String> {
    // SAFETY: a jsonb argument.
    object(argument, unsafe { JsonbText::of(required(argument, value)?.0) })
}

/// The text of a JSON object; other values, and larger ones, are 22023.
pub fn object(argument: &'static str, json: JsonbText) -> Result<String> {
    match json.0 {
        Ok(text) if text.starts_with('{') => Ok(text),
        Ok(_) => Err(Error::invalid(argument, "it is not a JSON object", "Pass an object such as '{\"order\": \"A-17\"}'.")),
        Err(bytes) => Err(Error::invalid(
            argument,
            format!("it has {bytes} bytes, {JSONB_BYTES_MAX} are allowed"),
            "Keep large documents elsewhere and store a reference.",
        )),
    }
}

fn refuse_private_keys(argument: &'static str, text: &str) -> Result<()> {
    if json::has_private_keys(text) {
        return Err(Error::invalid(argument, "a key begins with $serde_json::private::", "Name the key otherwise."));
    }
    Ok(())
}

/// A JSON object that is read.
pub fn members(argument: &'static str, text: &str) -> Result<Map<String, Value>> {
    refuse_private_keys(argument, text)?;
    serde_json::from_str(text).map_err(|error| {
        let problem = if error.classify() == Category::Syntax { "it is nested too deeply" } else { "it is not a JSON object" };
        Error::invalid(argument, problem, "Pass an object of at most 127 levels.")
    })
}

/// A usage event, from its name and the text of its properties.
pub fn event(event_name: Option<&str>, properties_text: String) -> Result<Event> {
    let event_name = EventName::checked("event_name", required("event_name", event_name)?)?;
    Ok(Event { event_name, properties: members("properties", &properties_text)?, properties_text })
}

/// The text of properties; null is none.
pub fn properties_or_none(value: Option<JsonbArgument>) -> Result<String> {
    value.map_or_else(|| Ok("{}".to_owned()), |value| metadata("properties", Some(value)))
}

/// A JSON array, element by element.
pub fn array(argument: &'static str, value: Option<JsonbArgument>) -> Result<Vec<Box<RawValue>>> {
    // SAFETY: a jsonb argument.
    let text = unsafe { codec::jsonb_text(required(argument, value)?.0) };
    refuse_private_keys(argument, &text)?;
    serde_json::from_str(&text)
        .map_err(|_| Error::invalid(argument, "it is not a JSON array", "Pass an array of objects, one for each line."))
}

/// A price list as text, once it has been read and found right.
pub fn pricing(value: Option<JsonbArgument>) -> Result<(Pricing, String)> {
    // SAFETY: a jsonb argument.
    let text = match unsafe { JsonbText::of(required("pricing", value)?.0) }.0 {
        Ok(text) => text,
        Err(bytes) => {
            let problem = format!("it has {bytes} bytes, {JSONB_BYTES_MAX} are allowed");
            return Err(Error::invalid("pricing", problem, "Split the event's meters, or match fewer rates."));
        }
    };
    refuse_private_keys("pricing", &text)?;
    Ok((Pricing::parse(&text)?, text))
}

/// The reason of a correction, kept as metadata.
pub fn reason(value: Option<&str>) -> Result<Option<String>> {
    let Some(reason) = value else {
        return Ok(None);
    };
    let reason = reason_text(reason)?;
    Ok(Some(serde_json::json!({ "reason": reason }).to_string()))
}

/// A reason as it is: 1 to 1,000 bytes.
pub fn reason_text(reason: &str) -> Result<&str> {
    if reason.is_empty() {
        return Err(Error::invalid("reason", "it is empty", "Say why, or pass null where the reason is optional."));
    }
    if reason.len() > REASON_BYTES_MAX {
        return Err(Error::invalid(
            "reason",
            format!("it has {} bytes, {REASON_BYTES_MAX} are allowed", reason.len()),
            "Shorten it.",
        ));
    }
    Ok(reason)
}

/// Texts without null, each 1 to 255 bytes.
pub fn names(argument: &'static str, value: Option<TextsArgument>) -> Result<Vec<String>> {
    // SAFETY: a text[] argument.
    let elements = unsafe { codec::elements::<String>(required(argument, value)?.0) }
        .ok_or_else(|| Error::invalid(argument, "it has more than one dimension", "Pass a plain array of text."))?;
    let checked = |element: Option<String>| match element {
        Some(text) => checked_name(argument, &text),
        None => Err(Error::invalid(argument, "it has a null element", "Leave the null out.")),
    };
    elements.into_iter().map(checked).collect()
}

/// Names of the events whose usage a grant pays, one or more.
pub fn applies_to(argument: &'static str, value: Option<TextsArgument>) -> Result<Vec<String>> {
    let names = names(argument, value)?;
    if names.is_empty() {
        return Err(Error::invalid(
            argument,
            "it is empty, so that nothing could spend the grant",
            "Name events, or pass null for any usage.",
        ));
    }
    Ok(names)
}

/// A share of a hundred: 0 to 100.
pub fn percent(argument: &'static str, value: Option<NumericArgument>) -> Result<Amount> {
    let percent = amount_or_zero(argument, value)?;
    if percent > Amount::from_credits(100) {
        return Err(Error::invalid(argument, format!("{percent} is more than 100"), "Pass a percentage from 0 to 100."));
    }
    Ok(percent)
}

/// Settings of an update: null leaves one as it is, a name in `reset` puts it back to its default.
pub struct Settings {
    reset: Vec<String>,
}

impl Settings {
    pub fn reset(names: Vec<String>) -> Self {
        Self { reset: names }
    }

    /// Changes one setting as asked; both a value and its name in `reset` is 22023.
    pub fn set<T>(&mut self, name: &'static str, setting: &mut T, value: Option<T>, default: T) -> Result<()> {
        let names = self.reset.len();
        self.reset.retain(|other| other != name);
        let is_reset = self.reset.len() < names;
        match value {
            Some(_) if is_reset => {
                return Err(Error::invalid(name, "it is both given and named in reset", "Do one or the other."));
            }
            Some(value) => *setting = value,
            None if is_reset => *setting = default,
            None => {}
        }
        Ok(())
    }

    /// Refuses names in `reset` that were no setting (22023).
    pub fn done(&self, hint: &str) -> Result<()> {
        match self.reset.first() {
            None => Ok(()),
            Some(unknown) => Err(Error::invalid("reset", format!("\"{unknown}\" is no setting that has a default"), hint)),
        }
    }
}

/// How many customers one call of a maintenance function settles.
pub fn batch_size(value: Option<i32>) -> Result<i64> {
    match required("batch_size", value)? {
        size if size > 0 => Ok(size.into()),
        size => Err(Error::invalid("batch_size", format!("{size} is not positive"), "Pass 1 or more.")),
    }
}
