//! Decimal text as the binary form of `numeric`.

use super::RowWriter;

/// What stands in the field of the sign.
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITY: u16 = 0xd000;
const MINUS_INFINITY: u16 = 0xf000;

/// The most digits behind the point, and before it ("Numeric Types").
const SCALE_LIMIT: i64 = 16_383;
const WHOLE_LIMIT: i64 = 131_072;

/// The text is not a number, or not one that `numeric` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a number that the type numeric holds")]
pub struct NotANumber;

/// Writes the binary form of a decimal number: an optional sign, digits with an optional point, an optional exponent; or
/// `NaN`, `Infinity`, `-Infinity`. Trailing zeros behind the point are kept, as the server does.
///
/// # Errors
/// [`NotANumber`]; nothing was written then.
pub fn numeric(text: &str, into: &mut Vec<u8>) -> Result<(), NotANumber> {
    let special = match text {
        "NaN" => Some(NAN),
        "Infinity" | "+Infinity" => Some(INFINITY),
        "-Infinity" => Some(MINUS_INFINITY),
        _ => None,
    };
    if let Some(sign) = special {
        head(into, 0, 0, sign, 0);
        return Ok(());
    }
    let (is_negative, rest) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (mantissa, exponent) = match rest.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&rest[..at], exponent(&rest[at + 1..])?),
        None => (rest, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    if whole.len() + fraction.len() == 0 || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(NotANumber);
    }
    let length = |digits: &[u8]| i64::try_from(digits.len()).map_err(|_| NotANumber);
    let scale = (length(fraction)? - exponent).max(0);
    // Leading zeros do not count, for the limits and for the weight.
    let zeros = whole.iter().chain(fraction).take_while(|digit| **digit == b'0').count();
    let digits: Vec<u8> = whole.iter().chain(fraction).skip(zeros).map(|digit| digit - b'0').collect();
    // How many of them stand before the point; negative where zeros follow it first.
    let before = length(whole)? + exponent - i64::try_from(zeros).map_err(|_| NotANumber)?;
    if scale > SCALE_LIMIT || (!digits.is_empty() && before > WHOLE_LIMIT) {
        return Err(NotANumber);
    }
    let scale = u16::try_from(scale).map_err(|_| NotANumber)?;
    if digits.is_empty() {
        head(into, 0, 0, 0, scale);
        return Ok(());
    }
    // Groups of four decimal digits, counted from the point.
    let weight = (before - 1).div_euclid(4);
    let lead = usize::try_from((weight + 1) * 4 - before).map_err(|_| NotANumber)?;
    let mut groups = Vec::with_capacity(digits.len() / 4 + 2);
    let padded: Vec<u8> = std::iter::repeat_n(0, lead).chain(digits).collect();
    for group in padded.chunks(4) {
        let value = (0..4).fold(0u16, |value, at| value * 10 + u16::from(group.get(at).copied().unwrap_or(0)));
        groups.push(value);
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let count = i16::try_from(groups.len()).map_err(|_| NotANumber)?;
    let weight = i16::try_from(weight).map_err(|_| NotANumber)?;
    head(into, count, weight, if is_negative { NEGATIVE } else { 0 }, scale);
    for group in groups {
        into.extend_from_slice(&group.to_be_bytes());
    }
    Ok(())
}

fn head(into: &mut Vec<u8>, count: i16, weight: i16, sign: u16, scale: u16) {
    for word in [count.to_be_bytes(), weight.to_be_bytes(), sign.to_be_bytes(), scale.to_be_bytes()] {
        into.extend_from_slice(&word);
    }
}

fn exponent(text: &[u8]) -> Result<i64, NotANumber> {
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    // Seven digits are more than any number that fits needs.
    if digits.is_empty() || digits.len() > 7 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(NotANumber);
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Ok(if text.starts_with(b"-") { -value } else { value })
}

impl RowWriter {
    /// A `numeric` from decimal text: see [`numeric()`].
    ///
    /// # Errors
    /// [`NotANumber`]; no field was written then.
    pub fn numeric(&mut self, text: &str) -> Result<(), NotANumber> {
        let mut bytes = Vec::with_capacity(8 + text.len() / 2);
        numeric(text, &mut bytes)?;
        self.field(&bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<u16> {
        let mut bytes = Vec::new();
        numeric(text, &mut bytes).unwrap();
        bytes.chunks(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect()
    }

    #[test]
    fn groups_are_counted_from_the_point() {
        assert_eq!(words("0"), [0, 0, 0, 0]);
        assert_eq!(words("0.00"), [0, 0, 0, 2]);
        assert_eq!(words("1"), [1, 0, 0, 0, 1]);
        assert_eq!(words("12345.60"), [3, 1, 0, 2, 1, 2345, 6000]);
        assert_eq!(words("-0.0001"), [1, 0xffff, NEGATIVE, 4, 1]);
        assert_eq!(words("0.00001"), [1, 0xfffe, 0, 5, 1000]);
        assert_eq!(words("1e5"), [1, 1, 0, 0, 10]);
        assert_eq!(words("1.50e1"), [1, 0, 0, 1, 15]);
        assert_eq!(words("-Infinity"), [0, 0, MINUS_INFINITY, 0]);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "-", ".", "1.2.3", "0x1", " 1", "1e", "1e99999999", "1e200000", "1e-20000", "nan", "--1"] {
            assert_eq!(numeric(text, &mut Vec::new()), Err(NotANumber), "{text}");
        }
    }
}
