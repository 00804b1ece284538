//! From a runbook to blocks that can run: `for_each` spread out, variables bound, every undo found. Pure.

use std::collections::BTreeMap;

use pgrunbook_document::{Block, Diagnostic, Entry, ItemId, Runbook, StepId, Undo, VarValue, Vocabulary};
use sha2::{Digest, Sha256};

/// A runbook whose blocks are all as they will run.
pub(crate) struct Expanded {
    pub phases: Vec<Section>,
    pub rollback_paths: Vec<Section>,
}

/// A phase or a rollback path.
pub(crate) struct Section {
    pub slug: String,
    pub title: String,
    pub entries: Vec<SectionEntry>,
}

pub(crate) enum SectionEntry {
    Item { id: ItemId, text: String, roles: Vec<String>, proofs: Vec<StepId> },
    Step(Box<Bound>),
}

/// A block whose variables are bound, and how it is undone.
pub(crate) struct Bound {
    pub block: Block,
    pub undo: BoundUndo,
}

pub(crate) enum BoundUndo {
    NotNeeded,
    Own {
        word: String,
    },
    /// A block marked `undo`, bound with the variables of the step that it undoes.
    Block(Box<Block>),
    /// Another forward step, as it will run: a backup.
    By(Box<Block>),
    Nothing {
        why: String,
    },
    OneWay {
        why: String,
    },
}

/// Spreads out and binds every block.
///
/// # Errors
/// Everything that is wrong with the use of variables, `for_each` and `undo`.
pub(crate) fn expand(
    runbook: &Runbook,
    variables: &BTreeMap<String, VarValue>,
    vocabulary: Vocabulary<'_>,
) -> Result<Expanded, Vec<Diagnostic>> {
    let mut expander = Expander { runbook, variables, vocabulary, wrong: Vec::new() };
    let phases = runbook.phases.iter().map(|p| expander.section(&p.slug, &p.title, &p.entries, Way::Forward)).collect();
    let rollback_paths =
        runbook.rollback_paths.iter().map(|p| expander.section(&p.slug, &p.title, &p.entries, Way::Back)).collect();
    if expander.wrong.is_empty() { Ok(Expanded { phases, rollback_paths }) } else { Err(expander.wrong) }
}

/// SHA-256 in hex over what a block is when it runs.
pub(crate) fn digest(block: &Block) -> String {
    let mut hasher = Sha256::new();
    for part in [block.kind.as_str(), block.id.as_str(), &block.text] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    format!("{:x}", hasher.finalize())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Back,
}

struct Expander<'a> {
    runbook: &'a Runbook,
    variables: &'a BTreeMap<String, VarValue>,
    vocabulary: Vocabulary<'a>,
    wrong: Vec<Diagnostic>,
}

impl Expander<'_> {
    fn section(&mut self, slug: &str, title: &str, entries: &[Entry], way: Way) -> Section {
        let mut out = Vec::new();
        for entry in entries {
            match entry {
                Entry::Step(block) => out.extend(self.steps(block, way)),
                Entry::Item(item) => {
                    let proofs: Vec<_> = item.proofs.iter().flat_map(|block| self.steps(block, way)).collect();
                    let ids = proofs.iter().filter_map(|entry| match entry {
                        SectionEntry::Step(bound) => Some(bound.block.id.clone()),
                        SectionEntry::Item { .. } => None,
                    });
                    out.push(SectionEntry::Item {
                        id: item.id.clone(),
                        text: item.text.clone(),
                        roles: item.roles.clone(),
                        proofs: ids.collect(),
                    });
                    out.extend(proofs);
                }
            }
        }
        Section { slug: slug.to_owned(), title: title.to_owned(), entries: out }
    }

    /// The instances of a block: one, or one for each value.
    fn steps(&mut self, block: &Block, way: Way) -> Vec<SectionEntry> {
        let instances = match block.expand(self.variables) {
            Ok(instances) => instances,
            Err(diagnostic) => {
                self.wrong.push(diagnostic);
                return Vec::new();
            }
        };
        let steps = instances.into_iter().filter_map(|bound| {
            let undo = self.undo(block, &bound, way)?;
            Some(SectionEntry::Step(Box::new(Bound { block: bound, undo })))
        });
        steps.collect()
    }

    /// Binds a block that undoes `instance` of `block`: it sees the value that `for_each` gave to the instance.
    fn bind_undo(&mut self, by: &Block, block: &Block, instance: &StepId) -> Option<Box<Block>> {
        let mut values = self.variables.clone();
        if let Some(for_each) = &block.for_each
            && let Some(value) = instance.as_str().strip_prefix(&format!("{}[", block.id))
        {
            let value = value.strip_suffix(']').unwrap_or(value);
            values.insert(for_each.value.variable.clone(), VarValue::Text(value.to_owned()));
        }
        match by.expand(&values) {
            Ok(bound) if bound.len() == 1 => bound.into_iter().next().map(Box::new),
            Ok(_) => {
                self.wrong.push(Diagnostic::error(
                    "undo-for-each",
                    by.id_span,
                    format!("`{}` undoes a step and so cannot be several itself: its `for_each` is the step's", by.id),
                ));
                None
            }
            Err(diagnostic) => {
                self.wrong.push(diagnostic);
                None
            }
        }
    }

    fn undo(&mut self, block: &Block, bound: &Block, way: Way) -> Option<BoundUndo> {
        let kind = self.vocabulary.find(&block.kind);
        if !kind.is_some_and(|kind| kind.changes) {
            return Some(BoundUndo::NotNeeded);
        }
        let Some(undo) = &block.undo else {
            if way == Way::Back {
                return Some(BoundUndo::Nothing { why: "it is part of a way back".to_owned() });
            }
            self.wrong.push(Diagnostic::error(
                "missing-undo",
                block.id_span,
                format!("`{}` changes something and does not say how that is undone", block.id),
            ));
            return None;
        };
        let name = match &undo.value {
            Undo::Auto => return Some(BoundUndo::Own { word: "auto".to_owned() }),
            Undo::None(why) => return Some(BoundUndo::Nothing { why: why.clone() }),
            Undo::OneWay(why) => return Some(BoundUndo::OneWay { why: why.clone() }),
            Undo::Named(name) => name,
        };
        if kind.is_some_and(|kind| kind.undo_words.contains(&name.as_str())) {
            return Some(BoundUndo::Own { word: name.clone() });
        }
        let runbook = self.runbook;
        if let Some(by) = runbook.undo_blocks.iter().find(|by| by.id.as_str() == name) {
            return Some(BoundUndo::Block(self.bind_undo(by, block, &bound.id)?));
        }
        let before = runbook.forward_steps().take_while(|step| step.id != block.id);
        if let Some(by) = before.into_iter().find(|by| by.id.as_str() == name) {
            return Some(BoundUndo::By(self.bind_undo(by, by, &by.id)?));
        }
        self.wrong.push(Diagnostic::error(
            "undo-names-nothing",
            undo.span,
            format!("no undo block and no step before `{}` is named `{name}`", block.id),
        ));
        None
    }
}
