//! `notify`.

use pgrunbook_engine::notice::{Messenger, Notice, Said, Scene};
use pgrunbook_engine::said::Recorded;
use pgrunbook_engine::state::RunState;
use pgrunbook_steps::Workplace;
use pgrunbook_steps::notify::{Channels, Words, by_hand};
use serde_json::json;

use crate::app::App;
use crate::args::{NotifyArgs, Output};
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// Says something in a channel. About a run it is recorded in its journal, and is the update that was due.
pub async fn notify(app: &App, args: &NotifyArgs) -> Result<u8, Failure> {
    let words = match (&args.text, &args.template) {
        (Some(text), _) => Words::Own { subject: args.subject.clone(), text: text.clone() },
        (None, Some(template)) => Words::Template(template.clone()),
        // One of them is demanded by the arguments.
        (None, None) => {
            return Err(Failure::unusable("notify", "there is nothing to say").help("give --text or --template"));
        }
    };
    if args.run == "-" {
        let project = app.project()?;
        let (title, environment) = (project.name.clone(), project.environment.name.clone());
        let workplace = app.workplace()?;
        let scene = Scene { run: "-".to_owned(), title, environment, operator: app.operator(), ..Scene::default() };
        let said = say(app, &workplace, &scene, &args.channel, &words).await?;
        return Ok(told(app, &said, None));
    }
    let opened = app.open().await?;
    let engine = &opened.engine;
    let status = engine.status(&args.run).await?;
    if status.state.rehearsal {
        return Err(Failure::unusable("notify", format!("{} is a rehearsal, of which nobody is told", args.run)));
    }
    let scene = scene(&opened.workplace, &args.run, &status.state, &engine.operator.principal);
    let said = say(app, &opened.workplace, &scene, &args.channel, &words).await?;
    let recorded = engine.record_said(&args.run, &said).await?;
    Ok(told(app, &said, Some(recorded)))
}

/// Where the run stands, and when the next update is promised.
fn scene(workplace: &Workplace, run: &str, state: &RunState, operator: &str) -> Scene {
    let now = jiff::Timestamp::now();
    let promise = Channels::new(workplace.clone()).promise(state.direction());
    let update_due = promise.and_then(|promise| {
        let every = jiff::SignedDuration::try_from(promise.every).ok()?;
        now.checked_add(every).ok()
    });
    Scene { update_due, ..Scene::of(run, state, operator, now) }
}

/// Sends it to each address of the channel.
async fn say(
    app: &App,
    workplace: &Workplace,
    scene: &Scene,
    channel: &str,
    words: &Words,
) -> Result<Vec<Said>, Failure> {
    let notices = by_hand(workplace, scene, channel, words, jiff::Timestamp::now())?;
    let channels = Channels::new(workplace.clone());
    let mut all = Vec::new();
    for notice in notices {
        let (delivered, said) = match channels.deliver(&notice).await {
            Ok(said) => (true, said),
            Err(said) => (false, said),
        };
        all.push(Said { notice, by: app.operator(), delivered, said });
    }
    Ok(all)
}

/// Says what became of it; the exit code.
fn told(app: &App, all: &[Said], recorded: Option<Recorded>) -> u8 {
    let code = if all.iter().all(|said| said.delivered) { exit::DONE } else { exit::FAILED };
    for Said { notice: Notice { key, channel, address, .. }, delivered, said, .. } in all {
        if app.global.format == Output::Json {
            put(&json!({
                "type": "notice", "key": key, "channel": channel, "address": address, "delivered": delivered, "said": said,
            })
            .to_string());
            continue;
        }
        let what = if *delivered { "told" } else { "NOT told" };
        put(&format!("{channel} ({address}) {what}: {said}"));
    }
    match recorded {
        Some(Recorded::Left) => {
            app.aside(
                "the process at work on the run has not recorded it yet; it will, or the next that takes the run",
            );
        }
        Some(Recorded::InJournal) | None => {}
    }
    code
}
