//! What the environment demanded, and what is to be reviewed since somebody went on without it.

use std::fmt::Write as _;

use super::report::{code, heading, inline, table, when};
use crate::state::RunState;

/// The demands as they stood, and the review items. Nothing where nothing was demanded.
pub(super) fn section(text: &mut String, state: &RunState) {
    if !state.demands.is_empty() {
        let rows: Vec<_> = state
            .demands
            .iter()
            .map(|demand| {
                let (mark, held) = match &demand.held {
                    Some(held) => ("✓", inline(held)),
                    None => ("✗", "**overridden**: see below".to_owned()),
                };
                vec![mark.to_owned(), inline(&demand.demanded), held]
            })
            .collect();
        table(text, &["", "demanded by the environment", "held"], &rows);
    }
    if state.overrides.is_empty() {
        return;
    }
    heading(text, if state.open_reviews().next().is_some() { "To be reviewed" } else { "Reviewed" });
    for one in &state.overrides {
        let (by, at, reason) = (inline(&one.by), when(one.at), inline(&one.reason));
        let reason = reason.trim_end_matches('.');
        let mark = if one.closed.is_some() { "x" } else { " " };
        let closed = one.closed.as_ref().map_or_else(String::new, |closed| {
            let closing = &closed.closing;
            let key = closing.key.as_deref().map_or_else(|| "not signed".to_owned(), code);
            format!(". Closed by {} at {}: {} ({key})", inline(&closing.by), when(closed.at), inline(&closing.reason))
        });
        let _ = writeln!(
            text,
            "- [{mark}] {} overridden by {by} at {at}: {reason}. Found: {}{closed}",
            one.demand.word(),
            inline(&one.found)
        );
    }
    text.push('\n');
}
