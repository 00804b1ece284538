//! What is told of a long step while it runs: its samples with their curve, as lines and as JSON.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::Value;

use crate::place::{Place, Said};

/// Stays at its first stage until there is a reading.
const RAMP: &str = "# A ramp

## Flags

```toml step
ramp = \"ingest\"
target = \"main\"
stages = [10, 50, 100]
hold = \"30ms\"
interval = \"10ms\"
deadline = \"60s\"
undo = \"auto\"

[metric.errors]
sql = \"SELECT value FROM reading\"
max = 1
```
";

async fn place() -> Place {
    let place = Place::new().await;
    place.write("RUNBOOK.md", RAMP);
    place.execute("CREATE TABLE reading (value float8)").await;
    place
}

/// Runs it, and gives the metric a number when `is_first` says of a line that it is the first sample's. That line must come
/// while the run cannot end.
async fn run(place: &Place, format: &str, is_first: impl Fn(&str) -> bool) -> Vec<String> {
    let mut command = place.command(&["run", "RUNBOOK.md", "--format", format]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = Vec::new();
    for line in lines.by_ref() {
        told.push(line);
        if is_first(&told[told.len() - 1]) {
            break;
        }
    }
    assert!(child.try_wait().unwrap().is_none(), "it has ended before there was a reading: {told:#?}");
    let percentage = place.value("SELECT percentage FROM pgrunbook.flag WHERE name = 'ingest'").await;
    assert_eq!(percentage, "10.000", "and is at its first stage: {told:#?}");
    place.execute("INSERT INTO reading VALUES (0.5)").await;
    told.extend(lines);
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let said = Said { code: child.wait().unwrap().code(), out: told.join("\n"), err };
    said.done();
    told
}

/// The first place at or behind `from` whose line has a text.
fn find(told: &[String], from: usize, text: &str) -> usize {
    let at = told.iter().skip(from).position(|line| line.contains(text));
    from + at.unwrap_or_else(|| panic!("{text} behind line {from} of {told:#?}"))
}

#[tokio::test]
async fn samples_are_told_line_by_line_while_a_stage_is_held() {
    for format in ["human", "plain"] {
        let place = place().await;
        let told = run(&place, format, |line| line.contains("errors ? no row ?")).await;
        let mut at = 0;
        for (stage, percent) in [(1, 10), (2, 50), (3, 100)] {
            let begins = format!("      ingest at {percent} %, stage {stage} of 3: held for 3 samples, one each 10ms");
            at = find(&told, at, &begins);
            // What was not seen in the first stage stands before the rest of its curve.
            at = find(
                &told,
                at,
                if stage == 1 { "  errors 0.5 (at most 1) ?" } else { "1 of 3  errors 0.5 (at most 1) ▅" },
            );
            at = find(&told, at, "  errors 0.5 (at most 1) ");
            if stage > 1 {
                at = find(&told, at, "      3 of 3  errors 0.5 (at most 1) ▅▅▅");
            }
        }
        assert!(find(&told, at, "✓ ingest  ") > at, "{told:#?}");
        assert!(!told.concat().contains('\u{1b}'), "no colours where nobody looks: {told:#?}");
    }
}

#[tokio::test]
async fn json_tells_each_note_and_its_progress_as_they_come() {
    let place = place().await;
    let is_first = |line: &str| line.contains("\"progress\"") && line.contains("errors ? no row ?");
    let told = run(&place, "json", is_first).await;
    let values: Vec<Value> = told.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (mut stages, mut rounds, mut curves) = (Vec::new(), 0, Vec::new());
    for (at, value) in values.iter().enumerate() {
        let (event, progress) = (&value["event"], &value["progress"]);
        match (value["type"].as_str(), event["event"].as_str(), progress["progress"].as_str()) {
            (Some("event"), Some("noted"), None) => {
                assert_eq!((&event["step"], &event["attempt"]), (&"ingest".into(), &1.into()), "{value}");
                let note = &event["note"];
                match note["note"].as_str() {
                    Some("before") => assert!(note["value"].is_null() && stages.is_empty(), "{note}"),
                    Some("stage") => stages.push((note["number"].as_u64().unwrap(), note["percent"].as_f64().unwrap())),
                    Some("round") => {
                        rounds += 1;
                        let sample = &note["samples"]["errors"];
                        let marked = (sample["mark"].as_str(), sample["value"].as_f64());
                        assert!(matches!(marked, (Some("unsure"), None) | (Some("good"), Some(0.5))), "{note}");
                        // Told when it is in the journal, and before the next is.
                        let next = &values[at + 1];
                        assert_eq!((&next["type"], &next["step"]), (&"progress".into(), &"ingest".into()), "{next}");
                        assert_eq!(next["progress"]["progress"], "amount", "{next}");
                        assert_eq!(next["progress"]["unit"], "samples", "{next}");
                        let (done, total) = (&next["progress"]["done"], &next["progress"]["total"]);
                        assert!(done.as_u64() >= Some(1) && done.as_u64() <= total.as_u64(), "{next}");
                    }
                    _ => panic!("{note}"),
                }
            }
            (Some("progress"), None, Some("line")) => {
                curves.push(progress["text"].as_str().unwrap().to_owned());
            }
            _ => {}
        }
    }
    assert_eq!(stages, [(0, 10.0), (1, 50.0), (2, 100.0)]);
    assert!(rounds > 9, "one without a number, and three for each stage: {rounds}");
    let curve = |text: &str| curves.iter().filter(|line| line.contains(text)).count();
    assert_eq!(curve("ingest at 50 %, stage 2 of 3"), 1, "{curves:#?}");
    assert_eq!(curve("3 of 3  errors 0.5 (at most 1) ▅▅▅"), 2, "{curves:#?}");
    assert!(curve("errors ? no row ?") > 0, "{curves:#?}");
    assert_eq!(values.last().unwrap()["end"], "completed");
}
