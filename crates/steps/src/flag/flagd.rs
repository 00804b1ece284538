//! Edits one flag of a file in flagd's format (<https://flagd.dev/reference/flag-definitions/>), and leaves every other
//! byte of it as it is. Pure.

use serde_json::Value;

use super::json_text::{elements, member, members, replaced, with_member};
use super::store::Setting;

/// Weights are whole numbers: a share of a thousandth per cent is the smallest.
const FINE: f64 = 1_000.0;

/// The text of a flag in the file. `None`: there is no such flag.
///
/// # Errors
/// If the file is none of flagd's.
pub fn flag_text<'t>(file: &'t str, name: &str) -> Result<Option<&'t str>, String> {
    Ok(place(file, name)?.map(|range| &file[range]))
}

fn place(file: &str, name: &str) -> Result<Option<std::ops::Range<usize>>, String> {
    serde_json::from_str::<Value>(file).map_err(|error| format!("it is no JSON: {error}"))?;
    let flags = member(file, 0, "flags")?.ok_or("it has no `flags`")?;
    member(file, flags.start, name)
}

/// The file with another text for a flag.
///
/// # Errors
/// If the file is none of flagd's, or has no such flag.
pub fn with_flag(file: &str, name: &str, flag: &str) -> Result<String, String> {
    let range = place(file, name)?.ok_or_else(|| format!("it has no flag `{name}`"))?;
    Ok(replaced(file, vec![(range, flag.to_owned())]))
}

/// The text of a flag with this setting.
///
/// # Errors
/// If which variant is on cannot be told, or its targeting is of other rules, which a percentage would overwrite.
pub fn set(flag: &str, setting: &Setting) -> Result<String, String> {
    let mut text = flag.to_owned();
    if let Some(enabled) = setting.enabled {
        let state = if enabled { "\"ENABLED\"" } else { "\"DISABLED\"" };
        text = put(&text, "state", state)?;
    }
    let Some(percent) = setting.percent else { return Ok(text) };
    let (on, off) = variants(&text)?;
    let whole = percent.fract() == 0.0;
    let weight = |share: f64| if whole { share } else { (share * FINE).round() };
    let (on_weight, off_weight) = (weight(percent), weight(100.0 - percent));
    match shares(&text, &on, &off)? {
        Shares::At(on_at, off_at) => {
            Ok(replaced(&text, vec![(on_at, on_weight.to_string()), (off_at, off_weight.to_string())]))
        }
        Shares::None => {
            let name = |name: &str| Value::from(name).to_string();
            let pairs = format!("[{}, {on_weight}], [{}, {off_weight}]", name(&on), name(&off));
            put(&text, "targeting", &format!("{{ \"fractional\": [{pairs}] }}"))
        }
        Shares::Other => Err("its `targeting` has other rules than shares of its two variants".to_owned()),
    }
}

/// Whether a flag's text says that it is switched off, whatever its rules say.
pub fn is_disabled(flag: &str) -> bool {
    serde_json::from_str::<Value>(flag).is_ok_and(|value| value["state"] == "DISABLED")
}

/// The share of keys that a flag's text gives the feature to; `None` where it cannot be said.
pub fn percent(flag: &str) -> Option<f64> {
    let value: Value = serde_json::from_str(flag).ok()?;
    if is_disabled(flag) {
        return Some(0.0);
    }
    let (on, off) = variants(flag).ok()?;
    match shares(flag, &on, &off).ok()? {
        Shares::At(on, off) => {
            let (on, off): (f64, f64) = (flag[on].parse().ok()?, flag[off].parse().ok()?);
            (on + off > 0.0).then(|| on / (on + off) * 100.0)
        }
        Shares::None => Some(if value["defaultVariant"] == on.as_str() { 100.0 } else { 0.0 }),
        Shares::Other => None,
    }
}

fn put(text: &str, name: &str, value: &str) -> Result<String, String> {
    Ok(match member(text, 0, name)? {
        Some(range) => replaced(text, vec![(range, value.to_owned())]),
        None => with_member(text, 0, name, value),
    })
}

/// Names of the variants that are on and off: the one that is `true`, the one that is `false`; else `on` and `off`.
fn variants(flag: &str) -> Result<(String, String), String> {
    let value: Value = serde_json::from_str(flag).map_err(|error| error.to_string())?;
    let all = value["variants"].as_object().ok_or("it has no `variants`")?;
    let find = |wanted: bool, name: &str| {
        let mut found = all.iter().filter(|(_, value)| **value == Value::Bool(wanted));
        match (found.next(), found.next()) {
            (Some((name, _)), None) => Some(name.clone()),
            (None, _) if all.contains_key(name) => Some(name.to_owned()),
            _ => None,
        }
    };
    match (find(true, "on"), find(false, "off")) {
        (Some(on), Some(off)) if on != off => Ok((on, off)),
        _ => Err("which of its variants is on and which is off cannot be told".to_owned()),
    }
}

/// Where the weights of the two variants stand.
enum Shares {
    At(std::ops::Range<usize>, std::ops::Range<usize>),
    /// It has no targeting.
    None,
    /// It has rules that are not shares of these two.
    Other,
}

fn shares(flag: &str, on: &str, off: &str) -> Result<Shares, String> {
    let Some(targeting) = member(flag, 0, "targeting")? else { return Ok(Shares::None) };
    let rules = members(flag, targeting.start);
    if rules.is_empty() {
        return Ok(if matches!(&flag[targeting], "null" | "{}") { Shares::None } else { Shares::Other });
    }
    let [rule] = rules.as_slice() else { return Ok(Shares::Other) };
    if rule.name != "fractional" {
        return Ok(Shares::Other);
    }
    let (mut on_at, mut off_at, mut others) = (None, None, 0);
    for (number, element) in elements(flag, rule.value.start).into_iter().enumerate() {
        let pair = elements(flag, element.start);
        let name = pair.first().and_then(|range| serde_json::from_str::<String>(&flag[range.clone()]).ok());
        match (name, pair.as_slice()) {
            (Some(name), [_, weight]) if name == on && on_at.is_none() => on_at = Some(weight.clone()),
            (Some(name), [_, weight]) if name == off && off_at.is_none() => off_at = Some(weight.clone()),
            // What the shares are of: an expression, before the pairs.
            _ if number == 0 && pair.is_empty() => {}
            _ => others += 1,
        }
    }
    Ok(match (on_at, off_at) {
        (Some(on), Some(off)) if others == 0 => Shares::At(on, off),
        _ => Shares::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
  "$schema": "https://flagd.dev/schema/v0/flags.json",
  "flags": {
    "other": {"state":"ENABLED", "variants":{"on":true,"off":false}, "defaultVariant":"on"},
    "ingest": {
      "state": "ENABLED",
      "variants": { "on": true, "off": false },
      "defaultVariant": "off"
    }
  }
}
"#;

    fn percent_of(value: f64) -> Setting {
        Setting { enabled: None, percent: Some(value) }
    }

    fn edit(file: &str, setting: &Setting) -> String {
        let flag = set(flag_text(file, "ingest").unwrap().unwrap(), setting).unwrap();
        with_flag(file, "ingest", &flag).unwrap()
    }

    #[test]
    fn share_is_added_in_the_files_own_form_and_taken_back_byte_for_byte() {
        let ten = edit(FILE, &percent_of(10.0));
        let wanted = FILE.replace(
            "\"defaultVariant\": \"off\"\n",
            "\"defaultVariant\": \"off\",\n      \"targeting\": { \"fractional\": [[\"on\", 10], [\"off\", 90]] }\n",
        );
        assert_eq!(ten, wanted);
        let fifty = edit(&ten, &percent_of(50.0));
        assert_eq!(fifty, ten.replace("10]", "50]").replace("90]", "50]"));
        assert_eq!(percent(flag_text(&fifty, "ingest").unwrap().unwrap()), Some(50.0));
        let back = with_flag(&fifty, "ingest", flag_text(FILE, "ingest").unwrap().unwrap()).unwrap();
        assert_eq!(back, FILE);
    }

    #[test]
    fn weights_are_whole_numbers() {
        let half = edit(FILE, &percent_of(0.5));
        assert!(half.contains("[\"on\", 500], [\"off\", 99500]"), "{half}");
        assert_eq!(percent(flag_text(&half, "ingest").unwrap().unwrap()), Some(0.5));
    }

    #[test]
    fn kill_switch_is_the_state() {
        let off = edit(FILE, &Setting { enabled: Some(false), percent: None });
        assert_eq!(off, FILE.replacen("      \"state\": \"ENABLED\"", "      \"state\": \"DISABLED\"", 1));
        assert_eq!(percent(flag_text(&off, "ingest").unwrap().unwrap()), Some(0.0));
    }

    #[test]
    fn what_the_shares_are_of_is_kept_and_other_rules_are_not_overwritten() {
        let flag = |targeting: &str| {
            format!("{{\"state\":\"ENABLED\",\"variants\":{{\"a\":true,\"b\":false}},\"targeting\":{targeting}}}")
        };
        let by_tenant = flag(r#"{"fractional": [{"var":"tenant"}, ["b", 9], ["a", 1]]}"#);
        assert_eq!(percent(&by_tenant), Some(10.0));
        assert!(set(&by_tenant, &percent_of(50.0)).unwrap().contains(r#"[{"var":"tenant"}, ["b", 50], ["a", 50]]"#));
        for other in [
            r#"{"if": [{"==": [{"var":"tenant"}, "x"]}, "a", "b"]}"#,
            r#"{"fractional": [["a", 1], ["b", 1], ["c", 1]]}"#,
            r#"{"fractional": [["a", 1], ["b", 1]], "if": []}"#,
        ] {
            assert!(set(&flag(other), &percent_of(50.0)).unwrap_err().contains("other rules"), "{other}");
        }
        assert!(set(r#"{"variants":{"x":1,"y":2}}"#, &percent_of(1.0)).is_err());
    }

    #[test]
    fn flag_that_is_there_twice_or_in_no_json_is_refused() {
        assert!(flag_text(r#"{"flags": {"a": {}, "a": {}}}"#, "a").unwrap_err().contains("twice"));
        assert!(flag_text("flags:", "a").is_err() && flag_text("{}", "a").is_err());
        assert_eq!(flag_text(r#"{"flags": {}}"#, "a"), Ok(None));
    }
}
