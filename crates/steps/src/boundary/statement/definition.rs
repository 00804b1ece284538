//! Statements that define, alter and drop.

use super::{Mode, Named, Reader};

impl Reader<'_> {
    /// The kind of object behind ALTER, DROP or CREATE, and the token behind it.
    pub(super) fn object(&self, at: usize) -> Option<(&'static str, usize)> {
        const OBJECTS: &[(&str, &[&str])] = &[
            ("TABLE", &["foreign", "table"]),
            ("TABLE", &["table"]),
            ("VIEW", &["materialized", "view"]),
            ("VIEW", &["view"]),
            ("INDEX", &["index"]),
            ("SEQUENCE", &["sequence"]),
            ("FUNCTION", &["function"]),
            ("FUNCTION", &["procedure"]),
            ("FUNCTION", &["routine"]),
            ("FUNCTION", &["aggregate"]),
            ("TYPE", &["type"]),
            ("TYPE", &["domain"]),
            ("STATISTICS", &["statistics"]),
            ("SCHEMA", &["schema"]),
            ("TRIGGER", &["trigger"]),
            ("POLICY", &["policy"]),
            ("RULE", &["rule"]),
        ];
        OBJECTS.iter().find_map(|(object, words)| {
            let there = words.iter().enumerate().all(|(ahead, word)| self.is(at + ahead, word));
            there.then_some((*object, at + words.len()))
        })
    }

    /// Steps over IF [NOT] EXISTS, ONLY and CONCURRENTLY.
    pub(super) fn noise(&self, mut at: usize) -> usize {
        while self.any(at, &["if", "not", "exists", "only", "concurrently"]) {
            at += 1;
        }
        at
    }

    pub(super) fn alter(&mut self, at: usize) -> Option<usize> {
        // `ALTER ... SET SCHEMA eng` and ATTACH PARTITION name a second one.
        let end =
            (at..self.tokens.len()).take(400).find(|at| self.mark(*at, ";")).unwrap_or(self.tokens.len().min(at + 400));
        for other in at + 2..end {
            if self.is(other, "schema") && self.before(other, &["set"]) {
                if let Some(part) = self.part(other + 1) {
                    self.write(at, other + 1, other + 2, "ALTER", Named::Schema(part));
                }
            } else if self.is(other, "partition")
                && self.before(other, &["attach", "detach"])
                && let Some((named, behind)) = self.name(other + 1)
            {
                self.write(at, other + 1, behind, "ALTER", named);
            }
        }
        if self.is(at + 1, "default") && self.is(at + 2, "privileges") {
            let schema = (at..end).find(|at| self.is(*at, "schema"))?;
            let part = self.part(schema + 1)?;
            self.write(at, schema + 1, schema + 2, "ALTER DEFAULT PRIVILEGES", Named::Schema(part));
            return Some(schema + 2);
        }
        let (object, from) = self.object(at + 1)?;
        let from = self.noise(from);
        match object {
            "SCHEMA" => self.schema(at, from, "ALTER"),
            "TRIGGER" | "POLICY" | "RULE" => self.on(at, from, "ALTER"),
            _ if self.is(from, "all") => None,
            _ => self.simple(at, from, "ALTER"),
        }
    }

    pub(super) fn drop(&mut self, at: usize) -> Option<usize> {
        let (object, from) = self.object(at + 1)?;
        let mut from = self.noise(from);
        if matches!(object, "TRIGGER" | "POLICY" | "RULE") {
            return self.on(at, from, "DROP");
        }
        let mut targets = Vec::new();
        loop {
            let (named, behind) =
                if object == "SCHEMA" { (Named::Schema(self.part(from)?), from + 1) } else { self.target(from)? };
            targets.push((from, behind, named));
            from = if self.mark(behind, "(") { self.behind_parentheses(behind) } else { behind };
            if !self.mark(from, ",") {
                break;
            }
            from += 1;
        }
        if self.is_strict() && !self.ends(from) && !self.any(from, &["cascade", "restrict"]) {
            return None;
        }
        for (from, behind, named) in targets {
            self.write(at, from, behind, "DROP", named);
        }
        Some(from)
    }

    pub(super) fn create(&mut self, at: usize) -> Option<usize> {
        let mut from = at + 1;
        let mut temporary = false;
        while self.any(
            from,
            &["or", "replace", "temp", "temporary", "unlogged", "global", "local", "recursive", "unique", "constraint"],
        ) {
            temporary |= self.any(from, &["temp", "temporary"]);
            from += 1;
        }
        let (object, from) = self.object(from)?;
        let from = self.noise(from);
        match object {
            "TRIGGER" | "POLICY" => return self.on(at, from, "CREATE"),
            "RULE" => {
                let to = (from..self.tokens.len().min(from + 12)).find(|at| self.is(*at, "to"))?;
                return self.simple(at, to + 1, "CREATE");
            }
            "INDEX" => return self.on(at, from, "CREATE"),
            "SCHEMA" if self.is(from, "authorization") => return None,
            "SCHEMA" => return self.schema(at, from, "CREATE"),
            "FUNCTION" => {
                let (named, behind) = self.name(from)?;
                if self.is_strict() && !self.mark(behind, "(") {
                    return None;
                }
                self.write(at, from, behind, "CREATE", named);
                self.bodies(at, Some(behind));
                return Some(behind);
            }
            _ => {}
        }
        let (named, behind) = self.name(from)?;
        let fits = match object {
            "TABLE" => self.mark(behind, "(") || self.any(behind, &["as", "partition", "of", "using", "with"]),
            "VIEW" => self.mark(behind, "(") || self.any(behind, &["as", "with"]),
            "TYPE" => self.is(behind, "as"),
            _ => !self.is_hole(from),
        };
        let cut = self.ends(behind) && !self.is_hole(from) && self.mode != Mode::Fragment;
        if self.is_strict() && !fits && !cut {
            return None;
        }
        if self.is(behind, "partition")
            && self.is(behind + 1, "of")
            && let Some((parent, behind)) = self.name(behind + 2)
        {
            self.write(at, behind - 1, behind, "CREATE", parent);
        }
        if temporary {
            self.temporary(&named, from, behind);
        } else {
            self.write(at, from, behind, "CREATE", named);
        }
        Some(behind)
    }

    pub(super) fn schema(&mut self, at: usize, from: usize, verb: &'static str) -> Option<usize> {
        let part = self.part(from)?;
        let next = from + 1;
        let fits = self.ends(next) || self.any(next, &["authorization", "rename", "owner", "create", "grant"]);
        if self.is_strict() && (!fits || self.is_hole(from)) && !(fits && self.mark(next, ";")) {
            return None;
        }
        self.write(at, from, next, verb, Named::Schema(part));
        Some(next)
    }

    /// `... ON name`, a few words ahead: triggers, policies, rules, indexes.
    pub(super) fn on(&mut self, at: usize, from: usize, verb: &'static str) -> Option<usize> {
        // `AFTER INSERT OR UPDATE OF a, b ON t`: as long as the list of columns is.
        let end = self.tokens.len().min(from + 60);
        let on = (from..end).take_while(|at| !self.mark(*at, ";")).find(|at| self.is(*at, "on"))?;
        self.simple(at, on + 1 + usize::from(self.is(on + 1, "only")), verb)
    }

    pub(super) fn simple(&mut self, at: usize, from: usize, verb: &'static str) -> Option<usize> {
        let (named, behind) = self.name(from)?;
        self.write(at, from, behind, verb, named);
        Some(behind)
    }

    pub(super) fn rebuild(&mut self, at: usize) -> Option<usize> {
        let verb = if self.is(at, "reindex") { "REINDEX" } else { "CLUSTER" };
        let mut from = at + 1;
        if self.mark(from, "(") {
            from = self.behind_parentheses(from);
        }
        if verb == "REINDEX" {
            if self.is(from, "schema") {
                let from = self.noise(from + 1);
                return self.schema(at, from, verb);
            }
            if !self.any(from, &["table", "index"]) {
                return None;
            }
            from += 1;
        }
        from = self.noise(from);
        let (named, behind) = self.name(from)?;
        if self.is_strict() && !self.ends(behind) && !self.is(behind, "using") {
            return None;
        }
        self.write(at, from, behind, verb, named);
        Some(behind)
    }

    pub(super) fn grant(&mut self, at: usize) -> Option<usize> {
        let verb = if self.is(at, "grant") { "GRANT" } else { "REVOKE" };
        let end = self.tokens.len().min(at + 80);
        let on = (at + 1..end).take_while(|at| !self.mark(*at, ";")).find(|at| self.is(*at, "on"))?;
        let mut from = on + 1;
        let mut schemas = self.is(from, "schema");
        if self.is(from, "all") && self.is(from + 2, "in") {
            schemas = true;
            from += 3;
        }
        if self.any(from, &["database", "language", "foreign", "large", "parameter", "tablespace"]) {
            return None;
        }
        if self.any(from, &["schema", "table", "sequence", "function", "procedure", "routine", "type", "domain"]) {
            from += 1;
        }
        loop {
            let (named, behind) = if schemas { (Named::Schema(self.part(from)?), from + 1) } else { self.name(from)? };
            self.write(at, from, behind, verb, named);
            from = if self.mark(behind, "(") { self.behind_parentheses(behind) } else { behind };
            if !self.mark(from, ",") {
                return Some(from);
            }
            from += 1;
        }
    }

    pub(super) fn comment(&mut self, at: usize) -> Option<usize> {
        if self.is(at + 2, "column") {
            let (named, behind) = self.column(at + 3)?;
            self.write(at, at + 3, behind, "COMMENT", named);
            return Some(behind);
        }
        if self.is(at + 2, "constraint") {
            return self.on(at, at + 3, "COMMENT");
        }
        let (object, from) = self.object(at + 2)?;
        match object {
            "SCHEMA" => self.schema(at, from, "COMMENT"),
            "TRIGGER" | "POLICY" | "RULE" => self.on(at, from, "COMMENT"),
            _ => self.simple(at, from, "COMMENT"),
        }
    }
}
