//! ISO dates and times as texts, and how they were spelled.
//!
//! SQLite has no type for them: the column is text, and the application decides what it writes. What is read here is what
//! SQLite's own date functions understand (<https://www.sqlite.org/lang_datefunc.html>), years 0000 to 9999, at most six
//! digits of a second's fraction, zones of hours and minutes.

use serde::{Deserialize, Serialize};

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;
/// Days from 1970-01-01 to PostgreSQL's day zero, 2000-01-01.
pub const EPOCH_DAYS: i64 = 10_957;

/// Why a text is no date or time that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotADate {
    /// It does not look like one.
    Shape,
    /// The 30th of February, the hour 25.
    Impossible,
    /// More digits than microseconds have.
    TooFine,
}

/// How a zone was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Zone {
    /// There was none.
    Absent,
    /// `Z`
    Z,
    /// `+00:00`
    Colon,
    /// `+0000`
    Plain,
    /// `+00`
    Hours,
}

/// How the fraction of a second is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fraction {
    /// Always so many digits.
    Digits(u8),
    /// So many, and none where the fraction is zero.
    WhenAny(u8),
}

/// The spelling of a column's times: what makes an inverse of the mapping possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Spelling {
    /// `T` between date and time; else a blank.
    pub letter: bool,
    /// Hours and minutes only, where the seconds are zero.
    pub minutes_only: bool,
    pub fraction: Fraction,
    pub zone: Zone,
}

impl Spelling {
    /// As SQLite's `datetime()` writes it.
    pub const PLAIN: Self =
        Self { letter: false, minutes_only: false, fraction: Fraction::Digits(0), zone: Zone::Absent };
    /// As most programs write a time in UTC.
    pub const UTC: Self = Self { letter: true, minutes_only: false, fraction: Fraction::Digits(0), zone: Zone::Z };
}

/// A text that was read: microseconds since 2000-01-01 (UTC where it had a zone), and its own spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub micros: i64,
    pub spelling: Spelling,
}

/// Reads `YYYY-MM-DD`: days since 2000-01-01.
pub fn parse_date(text: &[u8]) -> Result<i32, NotADate> {
    if text.len() != 10 {
        return Err(NotADate::Shape);
    }
    date_part(text)
}

fn number(text: &[u8]) -> Result<i64, NotADate> {
    if text.is_empty() || text.len() > 9 || !text.iter().all(u8::is_ascii_digit) {
        return Err(NotADate::Shape);
    }
    Ok(text.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
}

fn date_part(text: &[u8]) -> Result<i32, NotADate> {
    if text[4] != b'-' || text[7] != b'-' {
        return Err(NotADate::Shape);
    }
    let (year, month, day) = (number(&text[..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return Err(NotADate::Impossible),
    };
    if !(1..=days).contains(&day) {
        return Err(NotADate::Impossible);
    }
    i32::try_from(days_from_civil(year, month, day) - EPOCH_DAYS).map_err(|_| NotADate::Impossible)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * day_of_year + 2) / 153;
    let month = if part < 10 { part + 3 } else { part - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * part + 2) / 5 + 1)
}

/// Reads a date with a time of day, with or without a zone.
pub fn parse_stamp(text: &[u8]) -> Result<Stamp, NotADate> {
    if text.len() < 16 {
        return Err(NotADate::Shape);
    }
    let days = date_part(text)?;
    let letter = match text[10] {
        b'T' => true,
        b' ' => false,
        _ => return Err(NotADate::Shape),
    };
    if text[13] != b':' {
        return Err(NotADate::Shape);
    }
    let (hour, minute) = (number(&text[11..13])?, number(&text[14..16])?);
    let mut rest = &text[16..];
    let (mut second, mut micros, mut digits, mut minutes_only) = (0, 0, 0, true);
    if let [b':', tens, ones, more @ ..] = rest {
        second = number(&[*tens, *ones])?;
        minutes_only = false;
        rest = more;
        if let [b'.', more @ ..] = rest {
            let count = more.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if count == 0 {
                return Err(NotADate::Shape);
            }
            if count > 6 {
                return Err(NotADate::TooFine);
            }
            micros = number(&more[..count])? * 10_i64.pow(u32::try_from(6 - count).unwrap_or(0));
            digits = u8::try_from(count).unwrap_or(6);
            rest = &more[count..];
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(NotADate::Impossible);
    }
    let (zone, offset) = parse_zone(rest)?;
    let time = ((hour * 60 + minute - offset) * 60 + second) * 1_000_000 + micros;
    let spelling = Spelling { letter, minutes_only, fraction: Fraction::Digits(digits), zone };
    Ok(Stamp { micros: i64::from(days) * DAY + time, spelling })
}

/// The zone's spelling and its offset in minutes east.
fn parse_zone(text: &[u8]) -> Result<(Zone, i64), NotADate> {
    let (sign, digits) = match text {
        [] => return Ok((Zone::Absent, 0)),
        [b'Z'] => return Ok((Zone::Z, 0)),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return Err(NotADate::Shape),
    };
    let (zone, hours, minutes) = match digits {
        [a, b, b':', c, d] => (Zone::Colon, number(&[*a, *b])?, number(&[*c, *d])?),
        [a, b, c, d] => (Zone::Plain, number(&[*a, *b])?, number(&[*c, *d])?),
        [a, b] => (Zone::Hours, number(&[*a, *b])?, 0),
        _ => return Err(NotADate::Shape),
    };
    if hours > 14 || minutes > 59 {
        return Err(NotADate::Impossible);
    }
    Ok((zone, sign * (hours * 60 + minutes)))
}

/// Writes days since 2000-01-01 as `YYYY-MM-DD`; nothing outside the years 0000 to 9999.
pub fn print_date(days: i32) -> Option<String> {
    let (year, month, day) = civil_from_days(i64::from(days) + EPOCH_DAYS);
    (0..=9_999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}"))
}

/// Writes microseconds since 2000-01-01, in UTC, in a spelling. The value is kept: a fraction finer than the spelling's
/// gets as many digits as it needs. Nothing outside the years 0000 to 9999.
pub fn print_stamp(micros: i64, spelling: Spelling) -> Option<String> {
    let (days, time) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
    let mut text = print_date(i32::try_from(days).ok()?)?;
    let (seconds, fraction) = (time / 1_000_000, time % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    text.push(if spelling.letter { 'T' } else { ' ' });
    text.push_str(&format!("{hour:02}:{minute:02}"));
    if !spelling.minutes_only || second != 0 || fraction != 0 {
        text.push_str(&format!(":{second:02}"));
        let wanted = match spelling.fraction {
            Fraction::Digits(digits) => digits,
            Fraction::WhenAny(digits) => {
                if fraction == 0 {
                    0
                } else {
                    digits
                }
            }
        };
        let six = format!("{fraction:06}");
        let needed = six.trim_end_matches('0').len();
        let digits = usize::from(wanted).max(needed).min(6);
        if digits > 0 {
            text.push('.');
            text.push_str(&six[..digits]);
        }
    }
    text.push_str(match spelling.zone {
        Zone::Absent => "",
        Zone::Z => "Z",
        Zone::Colon => "+00:00",
        Zone::Plain => "+0000",
        Zone::Hours => "+00",
    });
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn days_are_counted_as_postgresql_does() {
        for (text, days) in
            [("2000-01-01", 0), ("1970-01-01", -10_957), ("0000-01-01", -730_485), ("9999-12-31", 2_921_939)]
        {
            assert_eq!(parse_date(text.as_bytes()), Ok(days), "{text}");
            assert_eq!(print_date(days).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_date_is_told_apart() {
        use NotADate::{Impossible, Shape, TooFine};
        for (text, why) in [
            ("", Shape),
            ("now", Shape),
            ("2024-02-30 00:00:00", Impossible),
            ("2023-02-29 00:00", Impossible),
            ("2024-13-01 00:00", Impossible),
            ("2024-01-01 24:00:00", Impossible),
            ("2024-01-01 00:00:60", Impossible),
            ("2024-01-01 00:00:00.1234567", TooFine),
            ("2024-01-01 00:00:00.", Shape),
            ("2024-01-01 00:00:00 UTC", Shape),
            ("2024-01-01 00:00:00+25:00", Impossible),
            ("-0044-03-15 00:00:00", Shape),
            ("12024-01-01 00:00:00", Shape),
            ("2024-01-01  0:00:00", Shape),
        ] {
            assert_eq!(parse_stamp(text.as_bytes()).map(|_| ()), Err(why), "{text}");
        }
    }

    #[test]
    fn zones_move_the_time_to_utc() {
        let at = |text: &str| parse_stamp(text.as_bytes()).unwrap().micros;
        assert_eq!(at("2024-01-01T02:00:00+02:00"), at("2024-01-01T00:00:00Z"));
        assert_eq!(at("2024-01-01T02:00:00-0130"), at("2024-01-01 03:30"));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(
            micros in -63_000_000_000_000_000_i64..252_000_000_000_000_000,
            letter: bool,
            digits in 0_u8..=6,
            any: bool,
            zone in 0_usize..5,
        ) {
            let zone = [Zone::Absent, Zone::Z, Zone::Colon, Zone::Plain, Zone::Hours][zone];
            let fraction = if any { Fraction::WhenAny(digits) } else { Fraction::Digits(digits) };
            let text = print_stamp(micros, Spelling { letter, minutes_only: false, fraction, zone }).unwrap();
            prop_assert_eq!(parse_stamp(text.as_bytes()).unwrap().micros, micros);
        }

        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (parse_stamp(&text), parse_date(&text));
        }
    }
}
