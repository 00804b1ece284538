//! PostgreSQL's `numeric`, from doubles and back into text: digits to the base of 10,000, and how many are shown.
//!
//! Source: `numeric_send` in src/backend/utils/adt/numeric.c. Header: digit count, weight of the first
//! digit, sign, display scale; each of two bytes.

pub use pgrunbook_postgres::copy::{NotANumber, numeric};

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Appends the shortest decimal number that reads back as the same double.
pub fn encode_double(number: f64, out: &mut Vec<u8>) -> Result<(), NotANumber> {
    match number {
        f64::INFINITY => numeric("Infinity", out),
        f64::NEG_INFINITY => numeric("-Infinity", out),
        _ => numeric(&format!("{number:e}"), out),
    }
}

/// The number as `numeric_out` prints it; nothing if the bytes are no numeric.
pub fn decode(bytes: &[u8]) -> Option<String> {
    let (head, body) = bytes.split_at_checked(8)?;
    let short = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (count, sign, scale) = (usize::from(short(0)), short(4), usize::from(short(6)));
    let weight = i64::from(i16::from_be_bytes([head[2], head[3]]));
    match sign {
        NAN => return Some("NaN".to_owned()),
        INFINITY => return Some("Infinity".to_owned()),
        NEGATIVE_INFINITY => return Some("-Infinity".to_owned()),
        POSITIVE | NEGATIVE => {}
        _ => return None,
    }
    if body.len() != count * 2 {
        return None;
    }
    let groups: Vec<u16> = body.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let group =
        |weight_of: i64| usize::try_from(weight - weight_of).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let mut text = String::new();
    if sign == NEGATIVE {
        text.push('-');
    }
    if weight < 0 {
        text.push('0');
    } else {
        for at in (0..=weight).rev() {
            let digits = group(at);
            text.push_str(&if at == weight { digits.to_string() } else { format!("{digits:04}") });
        }
    }
    if scale > 0 {
        text.push('.');
        let mut behind = String::with_capacity(scale + 4);
        let mut at = -1;
        while behind.len() < scale {
            behind.push_str(&format!("{:04}", group(at)));
            at -= 1;
        }
        behind.truncate(scale);
        text.push_str(&behind);
    }
    Some(text)
}

/// A decimal number without zeros that say nothing: what two spellings of one number have in common.
pub fn plain(text: &str) -> String {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    let digits = digits.trim_start_matches('0');
    let digits = if digits.is_empty() || digits.starts_with('.') { format!("0{digits}") } else { digits.to_owned() };
    if digits == "0" { digits } else { format!("{sign}{digits}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(text: &str) -> Option<String> {
        let mut bytes = Vec::new();
        numeric(text, &mut bytes).ok().and_then(|()| decode(&bytes))
    }

    #[test]
    fn numbers_come_back() {
        for text in
            ["0", "1", "-1", "0.1", "10000", "9999.0001", "-0.00001", "123456789012345678901234567890.5", "1.50"]
        {
            assert_eq!(there_and_back(text).as_deref(), Some(text));
        }
        assert_eq!(there_and_back("1e20").as_deref(), Some("100000000000000000000"));
        assert_eq!(there_and_back("5e-324").map(|text| text.len()), Some(2 + 324));
    }

    #[test]
    fn spellings_of_one_number_are_one() {
        for (text, expected) in
            [("1.50", "1.5"), ("1.0", "1"), ("-0.0", "0"), ("007", "7"), ("0.10", "0.1"), ("100", "100")]
        {
            assert_eq!(plain(text), expected);
        }
    }

    proptest! {
        #[test]
        fn doubles_by_their_shortest_text_come_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let mut bytes = Vec::new();
            encode_double(value, &mut bytes).unwrap();
            prop_assert_eq!(decode(&bytes).unwrap().parse::<f64>().unwrap(), value);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
        }
    }
}
