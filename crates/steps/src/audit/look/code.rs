//! Code that runs with another's rights, or because of somebody else's statement: SECURITY DEFINER functions, triggers,
//! rules, foreign keys.

use std::collections::{BTreeMap, BTreeSet};

use super::{Look, listed};
use crate::audit::catalog::{Class, PUBLIC, Relation, Routine};
use crate::audit::finding::{Finding, Severity};
use crate::audit::reach::{Standing, Subject};
use crate::audit::sql::{ident, path};
use crate::audit::words::{self, Mention};
use crate::topology::{Object, Privilege};

pub fn look(look: &mut Look<'_>) {
    let index = Index::new(look);
    let definers: Vec<&Routine> =
        look.catalog.routines.values().filter(|one| one.definer && one.extension.is_none()).collect();
    for definer in definers {
        look.definer(definer, &index);
    }
    look.triggers();
    look.rules();
    look.foreign_keys();
}

/// Relations and functions by their names.
struct Index<'a> {
    by_name: BTreeMap<(&'a str, &'a str), &'a Object>,
}

/// What a function leads to.
#[derive(Clone)]
struct Touch<'a> {
    object: &'a Object,
    does: Privilege,
}

impl<'a> Index<'a> {
    fn new(look: &Look<'a>) -> Self {
        let mut by_name = BTreeMap::new();
        for one in look.catalog.routines.values() {
            by_name.insert((one.object.schema.as_str(), one.name.as_str()), &one.object);
        }
        for one in look.catalog.relations.values() {
            by_name.insert((one.object.schema.as_str(), one.object.name.as_str()), &one.object);
        }
        Self { by_name }
    }

    /// What the text of a function speaks of, as far as it exists. Names without a schema are looked up by its search_path.
    fn touches(&self, routine: &Routine) -> Vec<Touch<'a>> {
        let mentions = words::mentions(routine.body.as_deref().unwrap_or_default());
        let search_path = routine.search_path().unwrap_or_else(|| vec![routine.object.schema.clone()]);
        mentions.iter().filter_map(|one| self.find(one, &search_path)).collect()
    }

    fn find(&self, mention: &Mention, search_path: &[String]) -> Option<Touch<'a>> {
        let found = match &mention.schema {
            Some(schema) => self.by_name.get(&(schema.as_str(), mention.name.as_str())),
            None => search_path.iter().find_map(|schema| self.by_name.get(&(schema.as_str(), mention.name.as_str()))),
        };
        found.map(|object| {
            let does = if object.kind.is_relation() { mention.does } else { object.kind.privileges()[0] };
            Touch { object, does }
        })
    }
}

impl<'a> Look<'a> {
    fn definer(&mut self, routine: &'a Routine, index: &Index<'a>) {
        let reach = self.reach;
        let known = reach.is_known_schema(&routine.object.schema);
        let callers: Vec<&Subject> =
            reach.who(Class::Routine, routine.oid, routine.schema, routine.owner, Privilege::Execute).collect();
        // A trigger function asks for no EXECUTE when it fires: whoever writes the table runs it.
        let fires: Vec<(&Relation, &str)> = self
            .catalog
            .triggers
            .iter()
            .filter(|one| one.function == routine.oid && one.enabled != 'D')
            .filter_map(|one| Some((self.catalog.relations.get(&one.relation)?, one.name.as_str())))
            .collect();
        let mut by_trigger = Vec::new();
        for (table, trigger) in &fires {
            by_trigger.extend(self.writers(table).into_iter().map(|(who, does)| (who, does, *table, *trigger)));
        }
        let reached = !callers.is_empty() || !by_trigger.is_empty();
        if !known && !reached {
            return;
        }
        self.search_path_of(routine, &callers, reached);
        let touches = index.touches(routine);
        if !routine.trigger {
            for subject in &callers {
                self.definer_reach(routine, subject, &touches);
            }
        }
        let mut told = BTreeSet::new();
        for (subject, does, table, trigger) in by_trigger {
            if told.insert((subject.oid, table.oid)) {
                self.definer_trigger(routine, subject, &does, table, trigger, &touches);
            }
        }
        if !known && callers.iter().any(|one| one.oid == PUBLIC) && !routine.trigger {
            self.put(Finding {
                rule: "definer-public",
                severity: Severity::Error,
                role: "PUBLIC".to_owned(),
                object: routine.object.to_string(),
                path: format!(
                    "`PUBLIC` -> EXECUTE `{}` (rights of `{}`)",
                    routine.object,
                    self.catalog.role_name(routine.owner)
                ),
                message: format!(
                    "everybody may execute `{}` with the rights of {}",
                    routine.object,
                    self.catalog.role_name(routine.owner)
                ),
                mend: Some(format!(
                    "REVOKE EXECUTE ON {} {} FROM PUBLIC;",
                    routine.object.kind.grant_word(),
                    routine.sql()
                )),
            });
        }
        self.unjudged(routine, &callers, reached);
        self.switches_off(routine, &callers, &touches);
    }

    /// Names in it must mean what they meant: what a caller makes must not stand before it.
    fn search_path_of(&mut self, routine: &'a Routine, callers: &[&Subject], reached: bool) {
        let known: Vec<String> = routine.search_path().unwrap_or_default();
        let names: Vec<&String> = known.iter().filter(|name| !name.is_empty()).collect();
        let set = routine.settings.iter().any(|one| one.starts_with("search_path="));
        let last = names.last().is_some_and(|name| *name == "pg_temp");
        let open: Vec<&str> = names
            .iter()
            .filter_map(|name| self.catalog.schemas.values().find(|one| one.name == **name))
            .filter(|schema| {
                let creates = |who: &Subject| {
                    !matches!(who.standing, Standing::Undeclared)
                        && self.reach.may(who.oid, Class::Schema, schema.oid, schema.owner, Privilege::Create)
                };
                self.reach.subjects.iter().any(creates)
            })
            .map(|schema| schema.name.as_str())
            .collect();
        let why = match (set, names.is_empty(), last) {
            (false, ..) => "has no search_path of its own: its caller's decides what its names mean".to_owned(),
            // Nothing but what is qualified, and the system's.
            (true, true, _) => return,
            (true, false, false) => {
                "does not look into pg_temp last: a temporary table stands before every other".to_owned()
            }
            (true, false, true) if !open.is_empty() => {
                format!("looks into `{}`, where others may create", open.join("`, `"))
            }
            _ => return,
        };
        let wanted: Vec<String> = match set {
            true => known.iter().filter(|name| *name != "pg_temp" && !open.contains(&name.as_str())).cloned().collect(),
            false => vec![routine.object.schema.clone()],
        };
        let wanted: Vec<String> = wanted.into_iter().chain(["pg_temp".to_owned()]).collect();
        let role = callers.first().map_or_else(|| self.catalog.role_name(routine.owner), |one| one.name.clone());
        self.put(Finding {
            rule: "definer-search-path",
            severity: if reached { Severity::Error } else { Severity::Warning },
            path: format!(
                "`{role}` -> EXECUTE `{}` (rights of `{}`)",
                routine.object,
                self.catalog.role_name(routine.owner)
            ),
            role,
            object: routine.object.to_string(),
            message: format!("the SECURITY DEFINER function `{}` {why}", routine.object),
            mend: Some(format!(
                "ALTER {} {} SET search_path = {};",
                routine.object.kind.grant_word(),
                routine.sql(),
                path(&wanted)
            )),
        });
    }

    /// What of it is beyond a subject: in another schema than the function's, and not declared.
    fn beyond(&self, subject: &Subject, home: &str, touches: &[Touch<'a>]) -> Vec<Touch<'a>> {
        touches
            .iter()
            .filter(|one| {
                one.object.schema != home
                    && self.reach.is_known_schema(&one.object.schema)
                    && !self.reach.allows(&subject.name, one.object, None, one.does)
            })
            .cloned()
            .collect()
    }

    fn definer_reach(&mut self, routine: &'a Routine, subject: &Subject, touches: &[Touch<'a>]) {
        let beyond = self.beyond(subject, &routine.object.schema, touches);
        let Some(first) = beyond.first() else { return };
        let owner = self.catalog.role_name(routine.owner);
        let begin = self.reach.path_to(subject, Class::Routine, routine.oid, routine.owner, Privilege::Execute);
        self.put(Finding {
            rule: "definer-reach",
            severity: Severity::Error,
            role: subject.name.clone(),
            object: routine.object.to_string(),
            path: format!(
                "{begin} -> EXECUTE `{}` (rights of `{owner}`) -> {} on `{}`",
                routine.object, first.does, first.object
            ),
            message: format!(
                "{} comes to {} through `{}`, which runs with the rights of {owner}",
                subject.name,
                touched(&beyond),
                routine.object
            ),
            mend: Some(as_invoker(routine)),
        });
    }

    fn definer_trigger(
        &mut self,
        routine: &'a Routine,
        subject: &Subject,
        does: &BTreeSet<Privilege>,
        table: &Relation,
        trigger: &str,
        touches: &[Touch<'a>],
    ) {
        let beyond = self.beyond(subject, &table.object.schema, touches);
        let (Some(first), Some(does)) = (beyond.first(), does.first()) else { return };
        let owner = self.catalog.role_name(routine.owner);
        self.put(Finding {
            rule: "definer-trigger",
            severity: Severity::Error,
            role: subject.name.clone(),
            object: routine.object.to_string(),
            path: format!(
                "`{}` -> {does} on `{}` -> trigger `{trigger}` -> `{}` (rights of `{owner}`) -> {} on `{}`",
                subject.name, table.object, routine.object, first.does, first.object
            ),
            message: format!(
                "{} comes to {} by writing to `{}`: its trigger runs with the rights of {owner}",
                subject.name,
                touched(&beyond),
                table.object
            ),
            mend: Some(as_invoker(routine)),
        });
    }

    fn unjudged(&mut self, routine: &'a Routine, callers: &[&Subject], reached: bool) {
        let body = routine.body.as_deref().unwrap_or_default();
        let why = match routine.language.as_str() {
            "sql" | "plpgsql" if words::is_dynamic(body) => "puts statements together while it runs",
            "sql" | "plpgsql" => return,
            _ => "is written in a language that is not read here",
        };
        if !reached {
            return;
        }
        let role = callers.first().map_or_else(|| self.catalog.role_name(routine.owner), |one| one.name.clone());
        self.put(Finding {
            rule: "definer-unjudged",
            severity: Severity::Note,
            path: format!(
                "`{role}` -> EXECUTE `{}` (rights of `{}`)",
                routine.object,
                self.catalog.role_name(routine.owner)
            ),
            role,
            object: routine.object.to_string(),
            message: format!(
                "`{}` {why}: what it reaches with its owner's rights cannot be told from its text",
                routine.object
            ),
            mend: Some(as_invoker(routine)),
        });
    }

    /// A function that switches off what keeps an append-only table as it is, for whoever may call it.
    fn switches_off(&mut self, routine: &'a Routine, callers: &[&Subject], touches: &[Touch<'a>]) {
        let body = routine.body.as_deref().unwrap_or_default();
        let lower = body.to_lowercase();
        let table = self.topology.append_only.iter().map(|one| &one.table).find(|table| {
            let named = lower.contains(&table.name.to_lowercase());
            let truncates = touches.iter().any(|touch| {
                touch.does == Privilege::Truncate
                    && touch.object.schema == table.schema
                    && touch.object.name == table.name
            });
            truncates || (named && words::disables_triggers(body))
        });
        let (Some(table), Some(caller)) = (table, callers.first()) else { return };
        self.put(Finding {
            rule: "append-only-function",
            severity: Severity::Error,
            role: caller.name.clone(),
            object: table.to_string(),
            path: format!(
                "`{}` -> EXECUTE `{}` (rights of `{}`) -> triggers of `{table}`",
                caller.name,
                routine.object,
                self.catalog.role_name(routine.owner)
            ),
            message: format!("{} may change rows of the append-only `{table}` by `{}`", caller.name, routine.object),
            mend: Some(as_invoker(routine)),
        });
    }

    /// A trigger that runs code of a schema whose owner's tenants are others than the table's.
    fn triggers(&mut self) {
        for one in &self.catalog.triggers {
            let (Some(table), Some(function)) =
                (self.catalog.relations.get(&one.relation), self.catalog.routines.get(&one.function))
            else {
                continue;
            };
            if table.schema == function.schema || !self.reach.is_known_schema(&function.object.schema) {
                continue;
            }
            let strangers: Vec<String> = self
                .writers(table)
                .into_iter()
                .filter(|(who, _)| !self.topology.uses_schema(&who.name, &function.object.schema, self.reach.today))
                .map(|(who, _)| who.name.clone())
                .collect();
            let Some(first) = strangers.first() else { continue };
            self.put(Finding {
                rule: "trigger-across",
                severity: Severity::Warning,
                role: first.clone(),
                object: table.object.to_string(),
                path: format!(
                    "`{first}` -> writes `{}` -> trigger `{}` -> `{}`",
                    table.object, one.name, function.object
                ),
                message: format!(
                    "writing to `{}` runs `{}` of a schema that {} does not use",
                    table.object,
                    function.object,
                    listed(&strangers)
                ),
                mend: Some(format!("DROP TRIGGER {} ON {};", ident(&one.name), table.sql())),
            });
        }
    }

    /// Rules act with the rights of the owner of the relation they are on.
    fn rules(&mut self) {
        for one in self.catalog.rewrites.iter().filter(|one| one.name != "_RETURN") {
            let (Some(on), Some(to)) =
                (self.catalog.relations.get(&one.relation), self.catalog.relations.get(&one.refers))
            else {
                continue;
            };
            let event = match one.event {
                '2' => Privilege::Update,
                '3' => Privilege::Insert,
                '4' => Privilege::Delete,
                _ => Privilege::Select,
            };
            let text = self.catalog.rules.iter().find(|(oid, name, _)| *oid == on.oid && *name == one.name);
            let mentions = words::mentions(text.map_or("", |(_, _, text)| text));
            let does = mentions
                .iter()
                .find(|mention| mention.schema.as_deref() == Some(&to.object.schema) && mention.name == to.object.name)
                .map_or(Privilege::Select, |mention| mention.does);
            let crosses = |who: &Subject| {
                to.schema != on.schema
                    && self.reach.is_known_schema(&to.object.schema)
                    && !self.reach.allows(&who.name, &to.object, None, does)
            };
            let who: Vec<Subject> = self
                .reach
                .who(Class::Relation, on.oid, on.schema, on.owner, event)
                .filter(|who| crosses(who))
                .cloned()
                .collect();
            for subject in who {
                let owner = self.catalog.role_name(on.owner);
                self.put(Finding {
                    rule: "rule-across",
                    severity: Severity::Error,
                    role: subject.name.clone(),
                    object: on.object.to_string(),
                    path: format!(
                        "`{}` -> {event} on `{}` -> rule `{}` (rights of `{owner}`) -> {does} on `{}`",
                        subject.name, on.object, one.name, to.object
                    ),
                    message: format!(
                        "{event} on `{}` by {} acts on `{}` with the rights of {owner}",
                        on.object, subject.name, to.object
                    ),
                    mend: Some(format!("DROP RULE {} ON {};", ident(&one.name), on.sql())),
                });
            }
        }
    }

    /// A foreign key is checked and carried out with the rights of the tables' owners.
    fn foreign_keys(&mut self) {
        for key in &self.catalog.foreign_keys {
            let (Some(from), Some(to)) = (self.catalog.relations.get(&key.from), self.catalog.relations.get(&key.to))
            else {
                continue;
            };
            let known = |one: &Relation| self.reach.is_known_schema(&one.object.schema);
            if !known(from) && !known(to) {
                continue;
            }
            self.cascade(key, from, to);
            // A value that is refused tells that no such row is there.
            let asks: Vec<String> = self
                .writers(from)
                .into_iter()
                .filter(|(who, does)| {
                    (does.contains(&Privilege::Insert) || does.contains(&Privilege::Update))
                        && known(to)
                        && !self.reach.allows(&who.name, &to.object, None, Privilege::Select)
                        && !self.selects_a_column(who, to)
                })
                .map(|(who, _)| who.name.clone())
                .collect();
            let Some(first) = asks.first() else { continue };
            self.put(Finding {
                rule: "foreign-key-across",
                severity: Severity::Warning,
                role: first.clone(),
                object: to.object.to_string(),
                path: format!(
                    "`{first}` -> INSERT on `{}` -> foreign key `{}` -> `{}`",
                    from.object, key.name, to.object
                ),
                message: format!(
                    "{} may learn which rows exist in `{}`, which it may not read",
                    listed(&asks),
                    to.object
                ),
                mend: Some(format!("ALTER TABLE {} DROP CONSTRAINT {};", from.sql(), ident(&key.name))),
            });
        }
    }

    fn selects_a_column(&self, who: &Subject, to: &Relation) -> bool {
        self.topology.closure(&who.name).into_iter().any(|name| {
            let set = self.topology.roles.get(name).and_then(|role| role.access.get(&to.object.schema));
            set.is_some_and(|set| !set.columns(&to.object, Privilege::Select).is_empty())
        })
    }

    fn cascade(&mut self, key: &crate::audit::catalog::ForeignKey, from: &'a Relation, to: &'a Relation) {
        if !self.reach.is_known_schema(&from.object.schema) {
            return;
        }
        let acts = |action: char| matches!(action, 'c' | 'n' | 'd');
        let carried = |event: Privilege, action: char| match (acts(action), action) {
            (true, 'c') => Some(event),
            (true, _) => Some(Privilege::Update),
            _ => None,
        };
        for (event, action) in [(Privilege::Delete, key.on_delete), (Privilege::Update, key.on_update)] {
            let Some(does) = carried(event, action) else { continue };
            let who: Vec<String> = self
                .writers(to)
                .into_iter()
                .filter(|(who, held)| held.contains(&event) && !self.reach.allows(&who.name, &from.object, None, does))
                .map(|(who, _)| who.name.clone())
                .collect();
            for role in who {
                self.put(Finding {
                    rule: "foreign-key-cascade",
                    severity: Severity::Error,
                    path: format!(
                        "`{role}` -> {event} on `{}` -> foreign key `{}` -> {does} on `{}`",
                        to.object, key.name, from.object
                    ),
                    message: format!("{event} on `{}` by {role} is carried into `{}`", to.object, from.object),
                    role,
                    object: from.object.to_string(),
                    mend: Some(without_actions(from, key)),
                });
            }
        }
    }
}

/// The same key, which refuses instead of carrying on.
fn without_actions(from: &Relation, key: &crate::audit::catalog::ForeignKey) -> String {
    let mut definition = key.definition.clone();
    for event in ["DELETE", "UPDATE"] {
        for action in ["CASCADE", "SET NULL", "SET DEFAULT"] {
            let words = format!(" ON {event} {action}");
            if let Some(at) = definition.find(&words) {
                let mut end = at + words.len();
                // From 15 on `SET NULL (column)`.
                if definition[end..].starts_with(" (") {
                    end += definition[end..].find(')').map_or(0, |close| close + 1);
                }
                definition.replace_range(at..end, "");
            }
        }
    }
    let name = ident(&key.name);
    format!("ALTER TABLE {} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {definition};", from.sql())
}

fn as_invoker(routine: &Routine) -> String {
    format!("ALTER {} {} SECURITY INVOKER;", routine.object.kind.grant_word(), routine.sql())
}

/// `` SELECT on `a.b` and UPDATE on `c.d` ``
fn touched(touches: &[Touch<'_>]) -> String {
    let all: Vec<String> = touches.iter().map(|one| format!("{} on `{}`", one.does, one.object)).collect();
    listed(&all)
}
