//! What differs from the declaration, making it so, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::redis::{Value, cmd};
use pgrunbook_engine::StepError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::commands::Commands;
use super::declare::{Access, DefaultUser, User};
use crate::redis::address::RedisOptions;
use crate::redis::error::RedisFault;
use crate::redis::node::{Node, everywhere, text};
use crate::secret::Reference;

/// The user of connections that do not log in.
const DEFAULT: &str = "default";

/// What would be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub orders: Vec<Order>,
    /// What would not be as people might think.
    pub warnings: Vec<String>,
    /// Users of whom the declaration does not speak.
    pub foreign: BTreeSet<String>,
}

/// One command on one server. Its password is a hash: shown as its reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub at: String,
    pub user: String,
    /// As people read it.
    pub shown: String,
    pub why: String,
    rule: Vec<String>,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    pub plan: Plan,
    /// Servers on which the rules were written to their file.
    pub saved: Vec<String>,
}

/// How users were before, by server: the words of `ACL LIST`, or none where there was no such user. Holds hashes of
/// passwords: it is kept in the run's folder, and nowhere else.
pub type Before = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// A user's state, as `ACL GETUSER` tells it.
#[derive(Debug, Default)]
struct State {
    flags: BTreeSet<String>,
    passwords: BTreeSet<String>,
    commands: String,
    keys: BTreeSet<String>,
    channels: BTreeSet<String>,
    selectors: usize,
}

/// The password of a reference.
pub type Password<'a> = &'a (dyn Fn(&Reference) -> Result<String, StepError> + Send + Sync);

/// What differs from the declaration, on every server. Changes nothing.
///
/// # Errors
/// If a server has no access rules (before Redis 6.2), or the credential may not see them.
pub async fn plan(
    options: &RedisOptions,
    access: &Access,
    password: Password<'_>,
    timeout: Duration,
) -> Result<Plan, StepError> {
    let mut nodes = everywhere(options, timeout).await?;
    let mut plan = Plan::default();
    for (at, why) in &nodes.silent {
        plan.warnings
            .push(format!("replica {at} does not answer, and after a failover every prefix is open there: {why}"));
    }
    for node in nodes.all() {
        look(node, access, password, &mut plan).await?;
    }
    Ok(plan)
}

async fn look(node: &mut Node, access: &Access, password: Password<'_>, plan: &mut Plan) -> Result<(), StepError> {
    require(node, access)?;
    let own = node.text(cmd("ACL").arg("WHOAMI")).await?;
    let commands = Commands::of(node).await?;
    for user in access.users.values() {
        let hash = hash(&password(&user.password)?);
        let Some(why) = differs(state(node, &user.name).await?.as_ref(), user, &hash, &commands) else { continue };
        if own == user.name {
            let message = format!("`{own}` would change its own rule on {}. Nothing was changed.", node.address);
            return Err(StepError::unusable("redis-own-user", message).help("give the target another credential"));
        }
        let at = node.address.clone();
        let words = user.rule().join(" ");
        let shown = format!("ACL SETUSER {} reset on #<{}> {words}", user.name, user.password.shown());
        let mut rule = vec!["reset".to_owned(), "on".to_owned(), format!("#{hash}")];
        rule.extend(user.rule());
        plan.orders.push(Order { at, user: user.name.clone(), shown, why, rule });
    }
    let default = state(node, DEFAULT).await?.unwrap_or_default();
    if default.flags.contains("on") {
        match access.default_user {
            DefaultUser::Off if own == DEFAULT => {
                let message = format!(
                    "the target connects to {} as the default user, which is to be off. Nothing was changed.",
                    node.address
                );
                return Err(StepError::unusable("redis-own-user", message)
                    .help("make a user for whoever administers, and name it in the target's address"));
            }
            DefaultUser::Off => plan.orders.push(Order {
                at: node.address.clone(),
                user: DEFAULT.to_owned(),
                shown: "ACL SETUSER default off".to_owned(),
                why: "the default user is on".to_owned(),
                rule: vec!["off".to_owned()],
            }),
            DefaultUser::Leave if default.flags.contains("nopass") => plan.warnings.push(format!(
                "{}: whoever connects is the default user, without a password: no prefix is kept from anybody \
                 (`default_user = \"off\"`)",
                node.address
            )),
            DefaultUser::Leave => {}
        }
    }
    let users = node.ask(cmd("ACL").arg("USERS")).await?;
    let Value::Array(users) = users else { return Err(node.not_understood(cmd("ACL").arg("USERS")).into()) };
    let names = users.iter().filter_map(text);
    plan.foreign.extend(names.filter(|name| name != DEFAULT && *name != own && !access.users.contains_key(name)));
    if acl_file(node).await? != Some(true) {
        plan.warnings.push(format!(
            "{}: no `aclfile` is set, so that rules are gone when it starts anew, unless its configuration has them",
            node.address
        ));
    }
    Ok(())
}

fn require(node: &Node, access: &Access) -> Result<(), StepError> {
    let old = |what: &'static str, needed: &'static str| RedisFault::TooOld {
        at: node.address.clone(),
        found: node.info.version().unwrap_or("of an unknown version").to_owned(),
        what,
        needed,
    };
    if node.info.is_at_least(6, 2) == Some(false) {
        return Err(old("keeping prefixes apart by access rules", "6.2").into());
    }
    if access.users.values().any(|user| !user.reads.is_empty()) && node.info.is_at_least(7, 0) == Some(false) {
        return Err(old("`reads`", "7.0").into());
    }
    Ok(())
}

/// Whether rules are kept over a restart; `None` if that is not told.
async fn acl_file(node: &mut Node) -> Result<Option<bool>, RedisFault> {
    match node.ask(cmd("CONFIG").arg("GET").arg("aclfile")).await {
        Ok(Value::Array(pair)) => Ok(pair.get(1).and_then(text).map(|path| !path.is_empty())),
        Ok(_) | Err(RedisFault::Refused { .. } | RedisFault::Failed { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// SHA-256 in hex, as rules hold passwords.
fn hash(password: &str) -> String {
    Sha256::digest(password.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn state(node: &mut Node, name: &str) -> Result<Option<State>, RedisFault> {
    let question = cmd("ACL").arg("GETUSER").arg(name).to_owned();
    let Value::Array(fields) = node.ask(&question).await? else { return Ok(None) };
    let mut state = State::default();
    for pair in fields.chunks_exact(2) {
        let [name, value] = pair else { continue };
        let list = || match value {
            Value::Array(words) => words.iter().filter_map(text).collect(),
            // From 7.0 on patterns are one text, as a rule has them; before, a list without their sign.
            other => text(other).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>(),
        };
        let signed = |sign: &str| -> BTreeSet<String> {
            let has = |word: &String| word.starts_with(['~', '%', '&']);
            list().into_iter().map(|word| if has(&word) { word } else { format!("{sign}{word}") }).collect()
        };
        match text(name).as_deref() {
            Some("flags") => state.flags = list(),
            Some("passwords") => state.passwords = list(),
            Some("commands") => state.commands = text(value).unwrap_or_default(),
            Some("keys") => state.keys = signed("~"),
            Some("channels") => state.channels = signed("&"),
            Some("selectors") => {
                state.selectors = list().len().max(usize::from(matches!(value, Value::Array(all) if !all.is_empty())));
            }
            _ => {}
        }
    }
    Ok(Some(state))
}

/// What is not as declared, in words; `None` if nothing is.
fn differs(state: Option<&State>, user: &User, hash: &str, commands: &Commands) -> Option<String> {
    let Some(state) = state else { return Some("there is no such user".to_owned()) };
    let mut why = Vec::new();
    if !state.flags.contains("on") {
        why.push("it is off".to_owned());
    }
    if state.flags.contains("nopass") {
        why.push("it needs no password".to_owned());
    } else if state.passwords != BTreeSet::from([hash.to_owned()]) {
        why.push("its password is another".to_owned());
    }
    let rule = user.rule();
    let declared =
        |signs: &[char]| rule.iter().filter(|word| word.starts_with(signs)).cloned().collect::<BTreeSet<_>>();
    for (what, found, wanted) in
        [("keys", &state.keys, declared(&['~', '%'])), ("channels", &state.channels, declared(&['&']))]
    {
        if *found != wanted {
            let listed = found.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            why.push(format!("its {what} are {}", if listed.is_empty() { "none" } else { &listed }));
        }
    }
    let found = commands.allowed(state.commands.split_whitespace());
    let wanted = commands.allowed(rule.iter().map(String::as_str));
    for (word, names) in [("may also", &found - &wanted), ("may not", &wanted - &found)] {
        if !names.is_empty() {
            let some: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
            let more = if names.len() > 5 { format!(" and {} more", names.len() - 5) } else { String::new() };
            why.push(format!("it {word} {}{more}", some.join(", ")));
        }
    }
    if state.selectors > 0 {
        why.push("it has selectors".to_owned());
    }
    (!why.is_empty()).then(|| why.join("; "))
}

/// How the users of a plan are now, for the way back.
///
/// # Errors
/// If a server does not tell.
pub async fn before(options: &RedisOptions, plan: &Plan, timeout: Duration) -> Result<Before, StepError> {
    let mut nodes = everywhere(options, timeout).await?;
    let mut before = Before::new();
    for node in nodes.all() {
        let Value::Array(lines) = node.ask(cmd("ACL").arg("LIST")).await? else {
            return Err(node.not_understood(cmd("ACL").arg("LIST")).into());
        };
        let lines: Vec<String> = lines.iter().filter_map(text).collect();
        let here = plan.orders.iter().filter(|order| order.at == node.address);
        let users = here.map(|order| {
            let head = format!("user {} ", order.user);
            (order.user.clone(), lines.iter().find_map(|line| line.strip_prefix(&head)).map(str::to_owned))
        });
        before.insert(node.address.clone(), users.collect());
    }
    Ok(before)
}

/// Makes it as declared, on every server that answers, and reads it back.
///
/// `keep` is given how it was, before anything is changed.
///
/// # Errors
/// If a server refuses; what was done by then is as declared, and the next attempt goes on.
pub async fn apply(
    options: &RedisOptions,
    access: &Access,
    password: Password<'_>,
    timeout: Duration,
    keep: &mut (dyn FnMut(&Before) -> Result<(), StepError> + Send),
) -> Result<Applied, StepError> {
    let plan = plan(options, access, password, timeout).await?;
    let before = before(options, &plan, timeout).await?;
    keep(&before)?;
    let mut nodes = everywhere(options, timeout).await?;
    let mut saved = Vec::new();
    for node in nodes.all() {
        let orders: Vec<&Order> = plan.orders.iter().filter(|order| order.at == node.address).collect();
        for order in &orders {
            set(node, &order.user, &order.rule).await?;
        }
        if !orders.is_empty() && save(node).await? {
            saved.push(node.address.clone());
        }
    }
    let left = self::plan(options, access, password, timeout).await?;
    if let Some(order) = left.orders.first() {
        let message = format!("user `{}` at {} is not as it was set: {}", order.user, order.at, order.why);
        return Err(StepError::failed("redis-not-set", message)
            .help("somebody else changes it too, or the server does not know every command that is declared"));
    }
    Ok(Applied { plan, saved })
}

async fn set(node: &mut Node, user: &str, rule: &[String]) -> Result<(), RedisFault> {
    node.ask(cmd("ACL").arg("SETUSER").arg(user).arg(rule)).await.map(drop)
}

/// Writes the rules to the server's file, if it has one.
async fn save(node: &mut Node) -> Result<bool, RedisFault> {
    if acl_file(node).await? != Some(true) {
        return Ok(false);
    }
    node.ask(cmd("ACL").arg("SAVE")).await.map(|_| true)
}

/// Makes users again what they were; the servers on which it was done.
///
/// # Errors
/// If a server that had them does not answer, or refuses.
pub async fn undo(options: &RedisOptions, before: &Before, timeout: Duration) -> Result<Vec<String>, StepError> {
    let mut nodes = everywhere(options, timeout).await?;
    let mut done = Vec::new();
    for (at, users) in before.iter().filter(|(_, users)| !users.is_empty()) {
        let Some(node) = nodes.all().find(|node| node.address == *at) else {
            let why = "it is no longer there; set its users by hand, or take it out for good".to_owned();
            return Err(RedisFault::Unreachable { at: at.clone(), why }.into());
        };
        for (user, line) in users {
            match line {
                None => node.ask(cmd("ACL").arg("DELUSER").arg(user)).await.map(drop)?,
                Some(line) => set(node, user, &as_it_was(user, line)).await?,
            }
        }
        save(node).await?;
        done.push(at.clone());
    }
    Ok(done)
}

/// Whether users are as they were.
///
/// # Errors
/// If a server does not tell.
pub async fn is_undone(options: &RedisOptions, before: &Before, timeout: Duration) -> Result<bool, StepError> {
    let orders = before.iter().flat_map(|(at, users)| {
        users.keys().map(|user| Order {
            at: at.clone(),
            user: user.clone(),
            shown: String::new(),
            why: String::new(),
            rule: Vec::new(),
        })
    });
    let plan = Plan { orders: orders.collect(), ..Plan::default() };
    let now = self::before(options, &plan, timeout).await?;
    // `reset` sets this flag, and nothing takes it away: it is about RESTORE, not about who reaches what.
    let words =
        |line: &String| -> Vec<String> { tokens(line).into_iter().filter(|word| word != "sanitize-payload").collect() };
    let same = |at: &String, user: &String, line: &Option<String>| {
        let found = now.get(at).and_then(|users| users.get(user)).and_then(Option::as_ref);
        found.map(words) == line.as_ref().map(words)
    };
    Ok(before.iter().all(|(at, users)| users.iter().all(|(user, line)| same(at, user, line))))
}

/// The rule that makes a user again what a line of `ACL LIST` says.
fn as_it_was(user: &str, line: &str) -> Vec<String> {
    // Nothing but `off` was ever said of the default user; `reset` would also set flags that it never had.
    if user == DEFAULT {
        return vec!["on".to_owned()];
    }
    std::iter::once("reset".to_owned()).chain(tokens(line)).collect()
}

/// The words of a line of `ACL LIST`; a selector in parentheses is one.
fn tokens(line: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut open = false;
    for word in line.split_whitespace() {
        match tokens.last_mut().filter(|_| open) {
            Some(last) => {
                last.push(' ');
                last.push_str(word);
            }
            None => tokens.push(word.to_owned()),
        }
        open = (open || word.starts_with('(')) && !word.ends_with(')');
    }
    tokens
}

/// What is kept for the way back, as it is written to disk.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    pub version: u32,
    pub before: Before,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_one_word() {
        let line = "on #aa ~stg:* -@all +get (~x* +set) (%R~y +get)";
        assert_eq!(tokens(line), ["on", "#aa", "~stg:*", "-@all", "+get", "(~x* +set)", "(%R~y +get)"]);
    }

    #[test]
    fn passwords_are_hashed_as_the_server_does() {
        assert_eq!(hash("x"), "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
    }
}
