//! `sign-off`.

use std::path::Path;

use pgrunbook_engine::sign_off;
use pgrunbook_steps::sign_off::Request;
use serde_json::json;

use super::proof::{armored, how_to_sign, must_name_signers};
use super::run::find;
use crate::app::App;
use crate::args::Output;
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

/// Signs what a run did until it came to its sign-off, or takes a signature that was made elsewhere.
///
/// The signature stands in the run's journal from then on; the run goes on with `resume`.
pub async fn sign_off(
    app: &App,
    run: Option<&str>,
    role: Option<&str>,
    key: Option<&Path>,
    signature: Option<&Path>,
) -> Result<u8, Failure> {
    let opened = app.open().await?;
    let engine = &opened.engine;
    let status = find(engine, run, true).await?;
    let (run, again) = (&status.run, app.again());
    must_name_signers(&engine.people, "sign off")?;
    let request = Request::of(run, &status.state)?;
    let principal = &engine.operator.principal;
    if key.is_none() && signature.is_none() && role.is_none() && app.global.principal.is_none() {
        return Ok(explain(app, &request, run));
    }
    let role = request.role(&engine.people, principal, role)?;
    let text = request.text(role);
    let Some(armored) = armored(app, sign_off::NAMESPACE, &text, key, signature)? else {
        if app.global.format == Output::Json {
            put(&json!({ "type": "sign-off", "run": run, "role": role, "text": text }).to_string());
        } else {
            put("Look at what happened (`pgrunbook show`), then sign exactly this text with your SSH key:\n");
            let command = format!("sign-off {run} --role {role}");
            put(&how_to_sign(sign_off::NAMESPACE, &text, &command, "sign-off.txt"));
        }
        return Ok(exit::WAITING);
    };
    let signed = engine.sign_off(run, &request.step, role, &armored).await?;
    let missing = Request::of(run, &engine.status(run).await?.state)?;
    let missing = missing.missing();
    if app.global.format == Output::Json {
        put(&json!({
            "type": "sign-off", "run": run, "step": signed.step, "role": signed.role, "principal": signed.principal,
            "key": signed.key, "head": signed.head, "missing": missing,
        })
        .to_string());
        return Ok(exit::DONE);
    }
    put(&format!("Signed off by {} as {} ({}): run {run}", signed.principal, signed.role, signed.key));
    match missing.as_slice() {
        [] => put(&format!("Everybody has signed.\n  pgrunbook resume {run}{again}")),
        missing => put(&format!("Missing: {}", missing.join(", "))),
    }
    Ok(exit::DONE)
}

/// What each role is asked to sign.
fn explain(app: &App, request: &Request, run: &str) -> u8 {
    for role in request.missing() {
        let text = request.text(role);
        match app.global.format {
            Output::Json => put(&json!({ "type": "sign-off", "run": run, "role": role, "text": text }).to_string()),
            _ => put(&format!("{role}:\n  {}", text.trim_end())),
        }
    }
    match (app.global.format, request.missing().is_empty()) {
        (Output::Json, _) => {}
        (_, true) => put("Everybody has signed."),
        (_, false) => {
            put(&format!("\nEach signs their text: pgrunbook sign-off {run} --as NAME --key ~/.ssh/id_ed25519"));
        }
    }
    exit::WAITING
}
