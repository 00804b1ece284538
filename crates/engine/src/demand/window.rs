//! Times at which an environment may be changed: `Mon-Thu 09:00-16:00 Europe/Berlin`, `2026-12-01 20:00-23:00 UTC`.
//!
//! A window is open whenever the clock of its time zone shows a time within it. So an hour that the clock skips is in no
//! window, and an hour that it shows twice is in one twice. Pure, but for the time zones' rules: the system's, else those
//! that are built in.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// How far ahead the next opening is looked for: two weeks, so that one that a changed clock skips is passed over.
const AHEAD_DAYS: usize = 15;

const DAY: u32 = 24 * 60 * 60;

/// A time at which an environment may be changed, on one day or on days of the week.
#[derive(Debug, Clone)]
pub struct Window {
    text: String,
    days: Days,
    /// Seconds since midnight by the clock. A window whose end is not after its beginning ends on the next day.
    from: u32,
    /// Not within it any more.
    to: u32,
    zone: TimeZone,
}

#[derive(Debug, Clone)]
enum Days {
    /// From Monday.
    Week([bool; 7]),
    On(Date),
}

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error("`{0}` is no window: write `Mon-Thu 09:00-16:00 Europe/Berlin` or `2026-12-01 20:00-23:00 UTC`")]
    Form(String),
    #[error("`{0}` is neither a day of the week (Mon, Tue, Wed, Thu, Fri, Sat, Sun) nor a date such as 2026-12-01")]
    Day(String),
    #[error("`{0}` is no time between 00:00 and 24:00")]
    Time(String),
    #[error("the window `{0}` ends when it begins")]
    Empty(String),
    #[error("`{0}` is no time zone; write one such as Europe/Berlin, or UTC")]
    Zone(String),
}

/// How several windows stand at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Windows {
    /// One is open; none is any more at this time, which is `None` if that does not come within two weeks.
    Open { until: Option<Zoned> },
    /// None is open; the next opens at this time. `None`: none does within two weeks, or ever.
    Closed { next: Option<Zoned> },
}

impl Window {
    /// The window as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is open at a time.
    pub fn is_open(&self, at: Timestamp) -> bool {
        let local = at.to_zoned(self.zone.clone()).datetime();
        let (date, time) = (local.date(), local.time());
        let second = u32::from(time.hour().unsigned_abs()) * 3600
            + u32::from(time.minute().unsigned_abs()) * 60
            + u32::from(time.second().unsigned_abs());
        if self.from < self.to {
            return self.is_on(date) && (self.from..self.to).contains(&second);
        }
        let since_yesterday = second < self.to && date.yesterday().is_ok_and(|before| self.is_on(before));
        (second >= self.from && self.is_on(date)) || since_yesterday
    }

    fn is_on(&self, date: Date) -> bool {
        match &self.days {
            Days::Week(days) => days[usize::from(date.weekday().to_monday_zero_offset().unsigned_abs())],
            Days::On(day) => *day == date,
        }
    }

    /// Times at which it may open or close after `now`. Some may be none: whoever asks looks at each.
    fn edges(&self, now: Timestamp) -> Vec<Timestamp> {
        let mut edges = Vec::new();
        let today = now.to_zoned(self.zone.clone()).date();
        let days: Vec<Date> = match &self.days {
            Days::On(day) => vec![*day],
            Days::Week(_) => {
                let first = today.yesterday().unwrap_or(today);
                first.series(jiff::Span::new().days(1)).take(AHEAD_DAYS + 2).collect()
            }
        };
        for day in days {
            let last = if self.from < self.to { Some(day) } else { day.tomorrow().ok() };
            let ends = [Some((day, self.from)), last.map(|last| (last, self.to))];
            for local in ends.into_iter().flatten().filter_map(|(day, second)| clock(day, second)) {
                // An hour that comes twice has two of each.
                let both = self.zone.to_ambiguous_timestamp(local);
                edges.extend(both.earlier().into_iter().chain(both.later()));
            }
        }
        // Where the clock jumps, a window may open or close in the middle.
        let jumps = self.zone.following(now).map(|transition| transition.timestamp());
        edges
            .extend(jumps.take_while(|at| at.duration_since(now) < SignedDuration::from_hours(24 * AHEAD_DAYS as i64)));
        edges
    }
}

impl Windows {
    /// How windows stand. Without any, nothing is open.
    pub fn at(windows: &[Window], now: Timestamp) -> Self {
        let open = |at: Timestamp| windows.iter().find(|window| window.is_open(at));
        let mut edges: Vec<Timestamp> = windows.iter().flat_map(|window| window.edges(now)).collect();
        edges.retain(|at| *at > now);
        edges.sort_unstable();
        match open(now) {
            Some(window) => {
                let until = edges.into_iter().find(|at| open(*at).is_none());
                Self::Open { until: until.map(|at| at.to_zoned(window.zone.clone())) }
            }
            None => {
                let next = edges.into_iter().find_map(|at| Some(at.to_zoned(open(at)?.zone.clone())));
                Self::Closed { next }
            }
        }
    }
}

/// What a clock shows so many seconds after midnight; midnight itself at the end of a day is the next day's.
fn clock(day: Date, second: u32) -> Option<DateTime> {
    let (day, second) = if second >= DAY { (day.tomorrow().ok()?, second - DAY) } else { (day, second) };
    let hour = i8::try_from(second / 3600).ok()?;
    let minute = i8::try_from(second / 60 % 60).ok()?;
    Some(day.at(hour, minute, 0, 0))
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let form = || WindowError::Form(text.to_owned());
        let words: Vec<&str> = text.split_whitespace().collect();
        let [days, times, zone] = words.as_slice() else { return Err(form()) };
        let (from, to) = times.split_once('-').ok_or_else(form)?;
        let (from, to) = (time(from)?, time(to)?);
        if from == to || from == DAY {
            return Err(WindowError::Empty(text.to_owned()));
        }
        let zone = TimeZone::get(zone).map_err(|_| WindowError::Zone((*zone).to_owned()))?;
        Ok(Self { text: words.join(" "), days: self::days(days)?, from, to, zone })
    }
}

/// `09:00`, `24:00`, in seconds since midnight.
fn time(text: &str) -> Result<u32, WindowError> {
    let digits = |part: &str| {
        let plain = (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse::<u32>().ok()).flatten()
    };
    let read = text.split_once(':').filter(|(_, minute)| minute.len() == 2);
    let seconds = read.and_then(|(hour, minute)| {
        let (hour, minute) = (digits(hour)?, digits(minute)?);
        (minute < 60).then_some(hour * 3600 + minute * 60)
    });
    seconds.filter(|seconds| *seconds <= DAY).ok_or_else(|| WindowError::Time(text.to_owned()))
}

/// `Mon`, `Mon-Thu`, `Fri-Mon`, `Mon,Wed-Thu`, `2026-12-01`.
fn days(text: &str) -> Result<Days, WindowError> {
    let unknown = |text: &str| WindowError::Day(text.to_owned());
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(Days::On(text.parse().map_err(|_| unknown(text))?));
    }
    let mut week = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) =
            (weekday(first).ok_or_else(|| unknown(first))?, weekday(last).ok_or_else(|| unknown(last))?);
        let mut day = first;
        loop {
            week[day] = true;
            if day == last {
                break;
            }
            day = (day + 1) % 7;
        }
    }
    Ok(Days::Week(week))
}

fn weekday(text: &str) -> Option<usize> {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    NAMES.iter().position(|name| name.eq_ignore_ascii_case(text))
}

/// A time of a window, for people: `Mon 2026-11-23 09:00 CET`.
pub fn shown(at: &Zoned) -> String {
    at.strftime("%a %Y-%m-%d %H:%M %Z").to_string()
}

/// How long it is until a time, for people: `3 d 4 h`, `2 h 10 min`, `45 min`. Whole minutes, rounded down.
pub fn until(at: &Zoned, now: Timestamp) -> String {
    let minutes = at.timestamp().duration_since(now).as_mins().max(0);
    match (minutes / (24 * 60), minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What windows say at a time: `open until ...`, `closed, next ...`.
    fn at(windows: &[&str], now: &str) -> String {
        let windows: Vec<Window> = windows.iter().map(|text| text.parse().unwrap()).collect();
        let now: Timestamp = now.parse().unwrap();
        match Windows::at(&windows, now) {
            Windows::Open { until: Some(end) } => format!("open until {}, {} left", shown(&end), until(&end, now)),
            Windows::Open { until: None } => "open".to_owned(),
            Windows::Closed { next: Some(next) } => format!("closed until {}", shown(&next)),
            Windows::Closed { next: None } => "closed".to_owned(),
        }
    }

    #[test]
    fn windows_open_and_close_by_the_clock_of_their_zone() {
        const WORK: &[&str] = &["Mon-Thu 09:00-16:00 Europe/Berlin"];
        const NIGHT: &[&str] = &["Fri 22:00-02:00 Europe/Berlin"];
        const ONCE: &[&str] = &["2026-12-01 20:00-23:00 UTC"];
        const BOTH: &[&str] = &["Mon 09:00-12:00 UTC", "Mon 12:00-14:00 UTC", "Mon 13:00-15:00 Europe/Berlin"];
        // 2027-03-28 02:00 CET becomes 03:00 CEST; 2026-10-25 03:00 CEST becomes 02:00 CET.
        const SKIPPED: &[&str] = &["Sun 02:10-02:40 Europe/Berlin"];
        const OVER_GAP: &[&str] = &["Sun 01:00-04:00 Europe/Berlin"];
        const INTO_GAP: &[&str] = &["Sun 01:00-02:30 Europe/Berlin"];
        let cases: &[(&[&str], &str, &str)] = &[
            // 2026-11-23 is a Monday; Berlin is an hour ahead.
            (WORK, "2026-11-23T07:59:59Z", "closed until Mon 2026-11-23 09:00 CET"),
            (WORK, "2026-11-23T08:00:00Z", "open until Mon 2026-11-23 16:00 CET, 7 h 0 min left"),
            (WORK, "2026-11-23T14:59:59Z", "open until Mon 2026-11-23 16:00 CET, 0 min left"),
            (WORK, "2026-11-23T15:00:00Z", "closed until Tue 2026-11-24 09:00 CET"),
            (WORK, "2026-11-26T16:00:00Z", "closed until Mon 2026-11-30 09:00 CET"),
            // In summer two.
            (WORK, "2026-07-06T07:00:00Z", "open until Mon 2026-07-06 16:00 CEST, 7 h 0 min left"),
            (WORK, "2026-07-06T06:59:00Z", "closed until Mon 2026-07-06 09:00 CEST"),
            // Over midnight: the day is the one on which it begins.
            (NIGHT, "2026-11-27T20:59:00Z", "closed until Fri 2026-11-27 22:00 CET"),
            (NIGHT, "2026-11-27T21:00:00Z", "open until Sat 2026-11-28 02:00 CET, 4 h 0 min left"),
            (NIGHT, "2026-11-28T00:30:00Z", "open until Sat 2026-11-28 02:00 CET, 30 min left"),
            (NIGHT, "2026-11-28T01:00:00Z", "closed until Fri 2026-12-04 22:00 CET"),
            (NIGHT, "2026-11-27T00:30:00Z", "closed until Fri 2026-11-27 22:00 CET"),
            (ONCE, "2026-11-23T08:00:00Z", "closed until Tue 2026-12-01 20:00 UTC"),
            (ONCE, "2026-12-01T21:30:00Z", "open until Tue 2026-12-01 23:00 UTC, 1 h 30 min left"),
            (ONCE, "2026-12-01T23:00:00Z", "closed"),
            (
                &["2026-12-31 22:00-02:00 UTC"],
                "2027-01-01T01:00:00Z",
                "open until Fri 2027-01-01 02:00 UTC, 1 h 0 min left",
            ),
            // Those that touch or overlap are one, across zones too.
            (BOTH, "2026-11-23T09:00:00Z", "open until Mon 2026-11-23 14:00 UTC, 5 h 0 min left"),
            (&["Mon-Sun 00:00-24:00 UTC"], "2026-11-23T12:00:00Z", "open"),
            (
                &["Mon,Wed-Thu 10:00-24:00 UTC"],
                "2026-11-23T23:59:00Z",
                "open until Tue 2026-11-24 00:00 UTC, 1 min left",
            ),
            (&["Mon,Wed-Thu 10:00-24:00 UTC"], "2026-11-24T12:00:00Z", "closed until Wed 2026-11-25 10:00 UTC"),
            (&["Fri-Mon 10:00-11:00 UTC"], "2026-11-22T10:30:00Z", "open until Sun 2026-11-22 11:00 UTC, 30 min left"),
            (&["Fri-Mon 10:00-11:00 UTC"], "2026-11-23T12:00:00Z", "closed until Fri 2026-11-27 10:00 UTC"),
            // An hour that is skipped is no window; one that comes twice is one twice.
            (SKIPPED, "2027-03-27T12:00:00Z", "closed until Sun 2027-04-04 02:10 CEST"),
            (SKIPPED, "2026-10-25T00:15:00Z", "open until Sun 2026-10-25 02:40 CEST, 25 min left"),
            (SKIPPED, "2026-10-25T00:45:00Z", "closed until Sun 2026-10-25 02:10 CET"),
            (SKIPPED, "2026-10-25T01:15:00Z", "open until Sun 2026-10-25 02:40 CET, 25 min left"),
            // A day of 23 hours and one of 25.
            (OVER_GAP, "2027-03-28T00:00:00Z", "open until Sun 2027-03-28 04:00 CEST, 2 h 0 min left"),
            (OVER_GAP, "2026-10-24T23:00:00Z", "open until Sun 2026-10-25 04:00 CET, 4 h 0 min left"),
            (INTO_GAP, "2027-03-28T00:00:00Z", "open until Sun 2027-03-28 03:00 CEST, 1 h 0 min left"),
            (&[], "2026-11-23T09:00:00Z", "closed"),
        ];
        for (windows, now, expected) in cases {
            assert_eq!(at(windows, now), *expected, "{windows:?} at {now}");
        }
    }

    #[test]
    fn text_that_is_no_window_is_refused_with_what_is_wrong() {
        let why = |text: &str| text.parse::<Window>().unwrap_err();
        let name = |text: &str| text.to_owned();
        assert_eq!(why("Mon-Thu 09:00-16:00"), WindowError::Form(name("Mon-Thu 09:00-16:00")));
        assert_eq!(why(""), WindowError::Form(String::new()));
        assert_eq!(why("Mon 09:00 UTC"), WindowError::Form(name("Mon 09:00 UTC")));
        assert_eq!(why("Mo 09:00-16:00 UTC"), WindowError::Day(name("Mo")));
        assert_eq!(why("Mon- 09:00-16:00 UTC"), WindowError::Day(String::new()));
        assert_eq!(why("2026-02-30 09:00-16:00 UTC"), WindowError::Day(name("2026-02-30")));
        for time in ["9", "24:01", "09:60", "09:0", "+9:00", "-1:00", "100:00"] {
            let text = format!("Mon 08:00-{time} UTC");
            assert!(matches!(why(&text), WindowError::Time(_)), "{text}: {}", why(&text));
        }
        assert_eq!(why("Mon 09:00-09:00 UTC"), WindowError::Empty(name("Mon 09:00-09:00 UTC")));
        assert_eq!(why("Mon 24:00-09:00 UTC"), WindowError::Empty(name("Mon 24:00-09:00 UTC")));
        assert_eq!(why("Mon 09:00-16:00 Berlin"), WindowError::Zone(name("Berlin")));
    }
}
