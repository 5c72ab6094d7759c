//! Values of the domain as PostgreSQL's datums and back.

use std::ffi::{c_char, c_int};
use std::rc::Rc;

use pgrx::pg_sys;
use uuid::Uuid;

use super::numeric::{self, Packed};
use crate::domain::amount::{Amount, NotAnAmount};
use crate::domain::time::{Interval, Timestamp};

/// A value that PostgreSQL stores as one type.
pub trait Codec: Sized {
    const OID: pg_sys::Oid;
    /// As `typlen`, `typbyval` and `typalign` of `pg_type`.
    const LAYOUT: (i16, bool, u8);

    /// # Safety
    /// The datum is of the type `OID`, and not null.
    unsafe fn decode(datum: pg_sys::Datum) -> Self;
    fn encode(&self) -> pg_sys::Datum;
}

macro_rules! by_value {
    ($($type:ty: $oid:ident, $length:literal, $alignment:literal;)*) => {$(
        impl Codec for $type {
            const OID: pg_sys::Oid = pg_sys::$oid;
            const LAYOUT: (i16, bool, u8) = ($length, true, $alignment);

            unsafe fn decode(datum: pg_sys::Datum) -> Self {
                datum.value() as $type
            }

            fn encode(&self) -> pg_sys::Datum {
                pg_sys::Datum::from(*self)
            }
        }
    )*};
}

by_value! {
    i16: INT2OID, 2, b's';
    i32: INT4OID, 4, b'i';
    i64: INT8OID, 8, b'd';
}

impl Codec for bool {
    const OID: pg_sys::Oid = pg_sys::BOOLOID;
    const LAYOUT: (i16, bool, u8) = (1, true, b'c');

    unsafe fn decode(datum: pg_sys::Datum) -> Self {
        datum.value() != 0
    }

    fn encode(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(*self)
    }
}

impl Codec for Timestamp {
    const OID: pg_sys::Oid = pg_sys::TIMESTAMPTZOID;
    const LAYOUT: (i16, bool, u8) = (8, true, b'd');

    unsafe fn decode(datum: pg_sys::Datum) -> Self {
        Timestamp::from_postgres(datum.value() as i64)
    }

    fn encode(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.to_postgres())
    }
}

impl Codec for String {
    const OID: pg_sys::Oid = pg_sys::TEXTOID;
    const LAYOUT: (i16, bool, u8) = (-1, false, b'i');

    unsafe fn decode(datum: pg_sys::Datum) -> Self {
        // SAFETY: a text datum; the database is in UTF8 (the extension refuses others), and PostgreSQL checks what enters it.
        unsafe { std::str::from_utf8_unchecked(content(datum)) }.to_owned()
    }

    fn encode(&self) -> pg_sys::Datum {
        text(self)
    }
}

impl Codec for Rc<str> {
    const OID: pg_sys::Oid = String::OID;
    const LAYOUT: (i16, bool, u8) = String::LAYOUT;

    unsafe fn decode(datum: pg_sys::Datum) -> Self {
        // SAFETY: as above.
        unsafe { std::str::from_utf8_unchecked(content(datum)) }.into()
    }

    fn encode(&self) -> pg_sys::Datum {
        text(self)
    }
}

/// A text datum.
pub fn text(text: &str) -> pg_sys::Datum {
    // SAFETY: copies `len` bytes.
    unsafe { pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), text.len() as c_int)) }
}

impl Codec for Uuid {
    const OID: pg_sys::Oid = pg_sys::UUIDOID;
    const LAYOUT: (i16, bool, u8) = (16, false, b'c');

    unsafe fn decode(datum: pg_sys::Datum) -> Self {
        // SAFETY: a uuid datum points to 16 bytes.
        Uuid::from_bytes(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
    }

    fn encode(&self) -> pg_sys::Datum {
        copied(*self.as_bytes())
    }
}

impl Codec for Interval {
    const OID: pg_sys::Oid = pg_sys::INTERVALOID;
    const LAYOUT: (i16, bool, u8) = (16, false, b'd');

    unsafe fn decode(datum: pg_sys::Datum) -> Self {
        // SAFETY: an interval datum points to one.
        let interval = unsafe { *datum.cast_mut_ptr::<pg_sys::Interval>() };
        Interval { months: interval.month, days: interval.day, microseconds: interval.time }
    }

    fn encode(&self) -> pg_sys::Datum {
        copied(pg_sys::Interval { month: self.months, day: self.days, time: self.microseconds })
    }
}

/// Where a row is in its table, as long as it is locked: its ctid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    block_high: u16,
    block_low: u16,
    offset: u16,
}

impl Codec for Place {
    const OID: pg_sys::Oid = pg_sys::TIDOID;
    const LAYOUT: (i16, bool, u8) = (6, false, b's');

    unsafe fn decode(datum: pg_sys::Datum) -> Self {
        // SAFETY: a tid datum points to one.
        let tid = unsafe { *datum.cast_mut_ptr::<pg_sys::ItemPointerData>() };
        Self { block_high: tid.ip_blkid.bi_hi, block_low: tid.ip_blkid.bi_lo, offset: tid.ip_posid }
    }

    fn encode(&self) -> pg_sys::Datum {
        let ip_blkid = pg_sys::BlockIdData { bi_hi: self.block_high, bi_lo: self.block_low };
        copied(pg_sys::ItemPointerData { ip_blkid, ip_posid: self.offset })
    }
}

/// A datum that points to a copy in the current memory context.
fn copied<T: Copy>(value: T) -> pg_sys::Datum {
    // SAFETY: palloc returns aligned memory of that size, or raises.
    unsafe {
        let copy = pg_sys::palloc(size_of::<T>()).cast::<T>();
        copy.write(value);
        pg_sys::Datum::from(copy)
    }
}

/// Reads any `numeric`.
///
/// # Safety
/// The datum is a numeric, and not null.
pub unsafe fn amount(datum: pg_sys::Datum) -> Result<Amount, NotAnAmount> {
    // SAFETY: the caller's promise; the bytes are read before anything else runs.
    numeric::read(unsafe { content(datum) })
}

/// Reads a `numeric` of more digits before the point than an amount has: a sum of amounts, as far as an `i128` holds it.
///
/// # Safety
/// The datum is a numeric, and not null.
pub unsafe fn sum(datum: pg_sys::Datum) -> Result<Amount, NotAnAmount> {
    // SAFETY: the caller's promise; the bytes are read before anything else runs.
    numeric::read_sum(unsafe { content(datum) })
}

/// What a datum of varying length holds, without its length.
///
/// # Safety
/// The datum is of such a type, and not null. The bytes live as long as it does, or as the current memory context.
unsafe fn content<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: the caller's promise. What is neither compressed nor stored elsewhere is read where it lies.
    unsafe {
        let mut varlena: *mut pg_sys::varlena = datum.cast_mut_ptr();
        if pgrx::varatt_is_4b_c(varlena) || pgrx::varatt_is_1b_e(varlena) {
            varlena = pg_sys::pg_detoast_datum_packed(varlena);
        }
        std::slice::from_raw_parts(pgrx::vardata_any(varlena).cast(), pgrx::varsize_any_exhdr(varlena))
    }
}

impl Codec for Amount {
    const OID: pg_sys::Oid = pg_sys::NUMERICOID;
    const LAYOUT: (i16, bool, u8) = (-1, false, b'i');

    unsafe fn decode(datum: pg_sys::Datum) -> Self {
        // SAFETY: the caller's promise.
        match unsafe { amount(datum) } {
            Ok(amount) => amount,
            Err(error) => panic!("a stored amount: {error:?}"),
        }
    }

    fn encode(&self) -> pg_sys::Datum {
        let packed = Packed::of(*self);
        let bytes = size_of_val(packed.words());
        // SAFETY: palloc returns aligned memory for the length and the words, or raises.
        unsafe {
            let varlena: *mut pg_sys::varlena = pg_sys::palloc(pg_sys::VARHDRSZ + bytes).cast();
            pgrx::set_varsize_4b(varlena, (pg_sys::VARHDRSZ + bytes) as i32);
            let to: *mut u16 = varlena.cast::<u8>().add(pg_sys::VARHDRSZ).cast();
            to.copy_from_nonoverlapping(packed.words().as_ptr(), packed.words().len());
            pg_sys::Datum::from(varlena)
        }
    }
}

/// An array datum of these values; none is a null element.
pub fn array<T: Codec>(elements: impl IntoIterator<Item = Option<T>>) -> pg_sys::Datum {
    array_of::<T>(elements.into_iter().map(|element| element.as_ref().map(T::encode)))
}

/// An array datum of these texts.
pub fn texts<'a>(elements: impl IntoIterator<Item = Option<&'a str>>) -> pg_sys::Datum {
    array_of::<String>(elements.into_iter().map(|element| element.map(text)))
}

/// An array of datums of the type of `T`.
fn array_of<T: Codec>(elements: impl Iterator<Item = Option<pg_sys::Datum>>) -> pg_sys::Datum {
    let (mut values, mut nulls): (Vec<_>, Vec<_>) =
        elements.map(|element| (element.unwrap_or(pg_sys::Datum::from(0)), element.is_none())).unzip();
    let mut lengths = [values.len() as c_int];
    let mut lower_bounds = [1];
    let (length, by_value, alignment) = T::LAYOUT;
    // SAFETY: one dimension of as many elements as there are values and nulls, of the layout of their type.
    unsafe {
        pg_sys::Datum::from(pg_sys::construct_md_array(
            values.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            lengths.as_mut_ptr(),
            lower_bounds.as_mut_ptr(),
            T::OID,
            length.into(),
            by_value,
            alignment as c_char,
        ))
    }
}

/// The elements of an array of one or no dimension; none if it has more.
///
/// # Safety
/// The datum is an array of the type of `T`, and not null.
pub unsafe fn elements<T: Codec>(datum: pg_sys::Datum) -> Option<Vec<Option<T>>> {
    let (length, by_value, alignment) = T::LAYOUT;
    // SAFETY: the caller's promise; deconstruct_array allocates both buffers with `count` elements.
    unsafe {
        let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        if (*array).ndim > 1 {
            return None;
        }
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array,
            T::OID,
            length.into(),
            by_value,
            alignment as c_char,
            &mut values,
            &mut nulls,
            &mut count,
        );
        let element = |index: usize| (!*nulls.add(index)).then(|| T::decode(*values.add(index)));
        Some((0..count as usize).map(element).collect())
    }
}

/// Names as the text of a JSON array.
pub fn json_array(names: &[String]) -> String {
    serde_json::Value::from(names).to_string()
}

/// A jsonb as text; or how many bytes it has, if that is more than [`JSONB_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq)]
pub struct JsonbText(pub Result<String, usize>);

/// What metadata and properties may have (SPEC 2).
pub const JSONB_BYTES_MAX: usize = 64 * 1024;

impl JsonbText {
    /// Its size is known without reading it.
    ///
    /// # Safety
    /// The datum is a jsonb, and not null.
    pub unsafe fn of(datum: pg_sys::Datum) -> Self {
        // SAFETY: the caller's promise.
        let bytes = unsafe { pg_sys::toast_raw_datum_size(datum) };
        // SAFETY: the caller's promise.
        Self(if bytes > JSONB_BYTES_MAX { Err(bytes) } else { Ok(unsafe { jsonb_text(datum) }) })
    }
}

/// A jsonb as text, whatever its size.
///
/// # Safety
/// The datum is a jsonb, and not null.
pub unsafe fn jsonb_text(datum: pg_sys::Datum) -> String {
    // SAFETY: jsonb_out takes a jsonb and returns a C string in UTF-8, which a database of ours is in.
    let text: Option<&std::ffi::CStr> = unsafe { pgrx::direct_function_call(pg_sys::jsonb_out, &[Some(datum)]) };
    text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Codec for Vec<String> {
    const OID: pg_sys::Oid = pg_sys::TEXTARRAYOID;
    const LAYOUT: (i16, bool, u8) = (-1, false, b'i');

    unsafe fn decode(datum: pg_sys::Datum) -> Self {
        // SAFETY: the caller's promise.
        unsafe { elements(datum) }.unwrap_or_default().into_iter().flatten().collect()
    }

    fn encode(&self) -> pg_sys::Datum {
        array(self.iter().cloned().map(Some))
    }
}
