//! What the environment demanded, and what is to be reviewed since somebody went on without it.

use std::fmt::Write as _;

use super::report::{heading, inline, table, when};
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
    heading(text, "To be reviewed");
    for one in &state.overrides {
        let (by, at, reason) = (inline(&one.by), when(one.at), inline(&one.reason));
        let reason = reason.trim_end_matches('.');
        let _ = writeln!(
            text,
            "- [ ] {} overridden by {by} at {at}: {reason}. Found: {}",
            one.demand.word(),
            inline(&one.found)
        );
    }
    text.push('\n');
}
