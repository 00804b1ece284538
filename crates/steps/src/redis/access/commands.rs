//! Which commands a rule allows. The server writes rules down in words of its own, which differ by version; what they
//! allow is compared, not how they are written.

use std::collections::{BTreeMap, BTreeSet};

use ::redis::{Value, cmd};

use crate::redis::error::RedisFault;
use crate::redis::node::{Node, text};

/// The commands of a server by category; a subcommand is `client|kill`.
pub struct Commands {
    categories: BTreeMap<String, BTreeSet<String>>,
    all: BTreeSet<String>,
}

impl Commands {
    /// Asks a server: <https://redis.io/docs/latest/commands/acl-cat/>.
    ///
    /// # Errors
    /// [`RedisFault`]
    pub async fn of(node: &mut Node) -> Result<Self, RedisFault> {
        let mut categories = BTreeMap::new();
        for name in words(node, cmd("ACL").arg("CAT")).await? {
            let commands = words(node, cmd("ACL").arg("CAT").arg(&name)).await?;
            categories.insert(name, commands.into_iter().collect::<BTreeSet<_>>());
        }
        Ok(Self::from(categories))
    }

    fn from(categories: BTreeMap<String, BTreeSet<String>>) -> Self {
        let all = categories.values().flatten().cloned().collect();
        Self { categories, all }
    }

    /// What the words of a rule allow, read from left to right.
    pub fn allowed<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
        let mut allowed = BTreeSet::new();
        for word in words {
            let (adds, name) = match word.to_lowercase().as_str() {
                "allcommands" => (true, "@all".to_owned()),
                "nocommands" => (false, "@all".to_owned()),
                other => match (other.strip_prefix('+'), other.strip_prefix('-')) {
                    (Some(name), _) => (true, name.to_owned()),
                    (_, Some(name)) => (false, name.to_owned()),
                    _ => continue,
                },
            };
            let meant = self.meant(&name);
            if adds {
                allowed.extend(meant);
            } else {
                meant.iter().for_each(|command| _ = allowed.remove(command));
            }
        }
        allowed
    }

    fn meant(&self, name: &str) -> Vec<String> {
        match name.strip_prefix('@') {
            Some("all") => self.all.iter().cloned().collect(),
            Some(category) => self.categories.get(category).into_iter().flatten().cloned().collect(),
            None => {
                let under = format!("{name}|");
                let named = self.all.iter().filter(|one| *one == name || one.starts_with(&under));
                named.cloned().collect()
            }
        }
    }
}

async fn words(node: &mut Node, command: &::redis::Cmd) -> Result<Vec<String>, RedisFault> {
    match node.ask(command).await? {
        Value::Array(words) => Ok(words.iter().filter_map(text).map(|word| word.to_lowercase()).collect()),
        _ => Err(node.not_understood(command)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_from_left_to_right_and_a_command_means_its_subcommands() {
        let category = |name: &str, words: &[&str]| {
            (name.to_owned(), words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>())
        };
        let commands = Commands::from(
            [category("read", &["get", "scan"]), category("connection", &["client|id", "client|kill", "ping"])].into(),
        );
        let allowed = |words: &str| commands.allowed(words.split(' ')).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(allowed("-@all +@read -scan"), "get");
        assert_eq!(allowed("+@all -client +client|id"), "client|id get ping scan");
        assert_eq!(allowed("-@all +scan +@read -@read +get"), "get");
        assert_eq!(allowed("allcommands"), "client|id client|kill get ping scan");
    }
}
