//! Rules about checks that cannot fail, as far as the text shows it.
//!
//! A gate that is green whatever the database holds is worse than none, since somebody rests on it. Each rule here was first
//! seen in a runbook that people used; its message says why the check cannot fail, its hint what to write instead.
//!
//! What a text cannot show is here only as far as the project declares it: whether a pattern matches a role.

mod catalog;
mod denial;
mod pattern;
mod script;
mod words;

use std::collections::BTreeSet;

use crate::diagnostic::Diagnostic;
use crate::model::{Block, Runbook, steps_of};
use crate::vocabulary::Vocabulary;

use words::Asked;

/// `roles`: those that the project declares, where it declares any.
pub(super) fn look(
    runbook: &Runbook,
    vocabulary: Vocabulary<'_>,
    roles: Option<&BTreeSet<String>>,
    found: &mut Vec<Diagnostic>,
) {
    let forward = read(runbook.forward_steps(), vocabulary);
    let undo = read(&runbook.undo_blocks, vocabulary);
    let paths: Vec<_> = runbook.rollback_paths.iter().map(|path| read(steps_of(&path.entries), vocabulary)).collect();

    let all: Vec<&Asked<'_>> = forward.iter().chain(paths.iter().flatten()).chain(&undo).collect();
    for asked in &all {
        pattern::doubled_backslash(asked, found);
        if asked.is_gate {
            catalog::grants_view(asked, found);
            catalog::role_settings(asked, found);
            catalog::trigger_state(asked, found);
            if let Some(roles) = roles {
                pattern::matches_no_role(asked, roles, found);
            }
        }
    }
    pattern::nobody_examined(&all, found);
    catalog::row_security_flag(&all, found);

    // A way back is run by itself: what the way forward has shown may be long ago, or never have been reached.
    denial::look(&forward, found);
    for path in &paths {
        denial::look(path, found);
    }
    for block in runbook.blocks() {
        if let Some(kind) = vocabulary.find(&block.kind) {
            script::look(block, kind, found);
        }
    }
}

/// The SQL steps among blocks.
fn read<'a>(blocks: impl IntoIterator<Item = &'a Block>, vocabulary: Vocabulary<'_>) -> Vec<Asked<'a>> {
    let is_gate = |block: &Block| vocabulary.find(&block.kind).is_some_and(|kind| !kind.changes);
    blocks.into_iter().filter_map(|block| Asked::of(block, is_gate(block))).collect()
}
