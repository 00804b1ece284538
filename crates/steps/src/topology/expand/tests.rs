use super::*;
use crate::topology::Object;

const BUTLERS: &str = r#"
suffix = "_app"
[environments.staging]
suffix = "_stg"
[database]
name = "butlers"
owner = "butler_owner"
[tenants]
list = ["health", "general"]
[schemas]
shared = {}
"{tenant}" = {}
[access.approved]
select = ["registry", "contacts"]
insert = ["contacts"]
update = ["contacts(phone, note)"]
execute = ["register( text,integer)"]
[roles."butler_{tenant}{suffix}"]
kind = "runtime"
password = "env:BUTLER_{TENANT}_PASSWORD"
search_path = ["{tenant}", "shared", "public"]
access = { "{tenant}" = "all", shared = "approved" }
[roles.butler_migrator]
kind = "migration"
[[chain]]
folder = "db/{tenant}"
schema = "{tenant}"
[[chain]]
folder = "db/shared"
schema = "shared"
"#;

fn read_in(text: &str, environment: &str) -> Result<Topology, String> {
    let declaration = declare::read("topology.toml", text).map_err(|error| error.to_string())?;
    expand(&declaration, "topology.toml", text, Path::new("/nonexistent"), environment)
        .map_err(|error| error.to_string())
}

fn read(text: &str) -> Result<Topology, String> {
    read_in(text, "default")
}

fn today() -> Date {
    Date::constant(2026, 11, 21)
}

fn object(schema: &str, name: &str, kind: Kind) -> Object {
    Object { schema: schema.to_owned(), name: name.to_owned(), kind }
}

#[test]
fn one_rule_expands_for_each_tenant() {
    let topology = read(BUTLERS).unwrap();
    let roles: Vec<&str> = topology.roles.keys().map(String::as_str).collect();
    assert_eq!(roles, ["butler_general_app", "butler_health_app", "butler_migrator", "butler_owner"]);
    let health = &topology.roles["butler_health_app"];
    assert_eq!(health.search_path, ["health", "shared", "public"]);
    assert_eq!(health.password, Some(Reference::Env("BUTLER_HEALTH_PASSWORD".to_owned())));
    assert_eq!(topology.roles["butler_migrator"].member_of, BTreeSet::from(["butler_owner".to_owned()]));
    let chains: Vec<String> = topology.chains.iter().map(ChainUse::history).collect();
    assert_eq!(chains, ["db/shared@shared", "db/health@health", "db/general@general"]);
}

#[test]
fn an_environment_has_its_own_suffix() {
    let topology = read_in(BUTLERS, "staging").unwrap();
    assert!(topology.roles.contains_key("butler_health_stg"), "{:?}", topology.roles.keys());
}

#[test]
fn what_is_not_declared_is_not_allowed() {
    use Privilege::{Delete, Execute, Insert, Select, Update};
    let topology = read(BUTLERS).unwrap();
    let may = |role: &str, schema: &str, name: &str, kind, privilege| {
        topology.allows(role, &object(schema, name, kind), None, privilege, today())
    };
    assert!(may("butler_health_app", "health", "notes", Kind::Table, Delete));
    assert!(may("butler_health_app", "shared", "contacts", Kind::Table, Insert));
    assert!(!may("butler_health_app", "shared", "contacts", Kind::Table, Delete));
    assert!(!may("butler_health_app", "shared", "contacts", Kind::Table, Update));
    assert!(!may("butler_health_app", "shared", "secrets", Kind::Table, Select));
    assert!(!may("butler_health_app", "general", "notes", Kind::Table, Select));
    assert!(may("butler_health_app", "shared", "register(text, integer)", Kind::Function, Execute));
    assert!(!may("butler_health_app", "shared", "register(text)", Kind::Function, Execute));
    assert!(may("butler_migrator", "general", "notes", Kind::Table, Delete));
    assert!(!may("stranger", "general", "notes", Kind::Table, Select));
    let contacts = object("shared", "contacts", Kind::Table);
    assert!(topology.allows("butler_health_app", &contacts, Some("phone"), Update, today()));
    assert!(!topology.allows("butler_health_app", &contacts, Some("id"), Update, today()));
    assert!(topology.uses_schema("butler_health_app", "shared", today()));
    assert!(!topology.uses_schema("butler_health_app", "general", today()));
}

#[test]
fn an_exception_allows_until_its_day() {
    let text = format!(
        "{BUTLERS}\n[[exception]]\nrole = \"butler_health_app\"\non = \"general.events\"\nmay = [\"select\"]\n\
         why = \"provenance\"\nuntil = 2026-12-31\n"
    );
    let topology = read(&text).unwrap();
    let events = object("general", "events", Kind::Table);
    let may = |day| topology.allows("butler_health_app", &events, None, Privilege::Select, day);
    assert!(may(Date::constant(2026, 12, 31)));
    assert!(!may(Date::constant(2027, 1, 1)));
    assert!(topology.uses_schema("butler_health_app", "general", today()));
}

#[test]
fn hostile_tenants_are_refused_with_one_sentence() {
    let long = "a".repeat(64);
    for name in
        ["\\\"; drop schema x; --", "Health", "gesundheit\\u00e9", "", "pg_temp", "public", "shared", &long, "a b"]
    {
        let text = BUTLERS.replace("\"health\"", &format!("\"{name}\""));
        let error = read(&text).unwrap_err();
        assert!(error.contains("tenant"), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    // 63 bytes are a schema's name, and its role's name would be cut.
    let text = BUTLERS.replace("\"health\"", &format!("\"{}\"", "a".repeat(63)));
    let error = read(&text).unwrap_err();
    assert!(error.contains("the role's name") && error.contains("has 74 bytes, and PostgreSQL keeps 63"), "{error}");
    let text = BUTLERS.replace("\"health\"", &format!("\"{}\"", "a".repeat(52)));
    assert!(read(&text).is_ok());
    let error = read(&BUTLERS.replace("\"general\"", "\"health\"")).unwrap_err();
    assert!(error.contains("the tenant `health` is there twice"), "{error}");
}

#[test]
fn mistakes_are_told_where_they_stand() {
    let cases = [
        (
            "shared = \"approved\" }",
            "shared = \"aproved\" }",
            "there is no access set `aproved`: there are all, select",
        ),
        ("shared = \"approved\" }", "sharde = \"approved\" }", "access to the schema `sharde`, which is not declared"),
        ("select = [\"registry\"", "selct = [\"registry\"", "`selct`, which is no privilege"),
        ("execute = [\"register( text,integer)\"]", "execute = [\"register\"]", "names no arguments"),
        ("insert = [\"contacts\"]", "delete = [\"contacts(a)\"]", "DELETE is not given by column"),
        ("env:BUTLER_{TENANT}_PASSWORD", "hunter2", "must be a reference"),
        ("{tenant}{suffix}", "{butler}{suffix}", "the patterns are {tenant}, {TENANT}, {suffix}"),
        ("kind = \"migration\"", "kind = \"migrator\"", "unknown variant `migrator`"),
        ("list = [\"health\", \"general\"]", "", "`tenants` needs a `list` or a `roster`"),
        ("[database]", "[database]\nownr = 1", "unknown field `ownr`"),
    ];
    for (from, to, wanted) in cases {
        assert!(BUTLERS.contains(from), "{from}");
        let error = read(&BUTLERS.replace(from, to)).unwrap_err();
        assert!(error.contains(wanted), "{to}: {error}");
    }
}

#[test]
fn a_runtime_role_never_acts_as_the_owner() {
    let text = BUTLERS.replace("kind = \"runtime\"", "kind = \"runtime\"\nmember_of = [\"butler_migrator\"]");
    let error = read(&text).unwrap_err();
    assert!(error.contains("would be a member of") && error.contains("which owns the schemas"), "{error}");
}

#[test]
fn a_roster_gives_tenants_and_their_modules() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join("roster").join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("butler.toml"), text).unwrap();
    };
    write("h", "[butler]\nname = \"health\"\nmodules = [\"mail\"]\n[butler.db]\nname = \"butlers\"\n");
    write("g", "[butler]\nname = \"general\"\n[butler.db]\nname = \"butlers\"\n");
    let roster = "roster = \"roster/*/butler.toml\"\nkey = \"butler.name\"\nmodules = \"butler.modules\"\n\
                  require = { \"butler.db.name\" = \"butlers\" }";
    let text = BUTLERS.replace("list = [\"health\", \"general\"]", roster)
        + "[[chain]]\nfolder = \"modules/{module}\"\nschema = \"{tenant}\"\n";
    let load = || {
        let declaration = declare::read("topology.toml", &text).unwrap();
        expand(&declaration, "topology.toml", &text, folder.path(), "default").map_err(|error| error.to_string())
    };
    let topology = load().unwrap();
    assert_eq!(topology.tenants, ["general", "health"]);
    let modules: Vec<_> = topology.chains.iter().filter(|chain| chain.layer == "module mail").collect();
    assert_eq!((modules.len(), modules[0].folder.as_str(), modules[0].schema.as_str()), (1, "modules/mail", "health"));
    assert_eq!(topology.files.len(), 3);
    write("g", "[butler]\nname = \"general\"\n[butler.db]\nname = \"butler_general\"\n");
    let error = load().unwrap_err();
    let wanted = "roster/g/butler.toml: `butler.db.name` is \"butler_general\", and must be \"butlers\"";
    assert!(error.contains(wanted), "{error}");
}

const SOURCES: &str = r#"
[database]
owner = "sx_owner"
[schemas]
shared = {}
[roles.sx_app]
kind = "runtime"
[sources]
registry = "shared.sources"
roles = ["sx_app"]
chain = ["db/source"]
"#;

#[test]
fn registered_sources_are_schemas_of_their_roles() {
    use Privilege::{Insert, Select};
    let topology = read(SOURCES).unwrap();
    let item = object("src_a", "items", Kind::Table);
    let registry = object("shared", "sources", Kind::Table);
    assert!(!topology.allows("sx_app", &item, None, Insert, today()));
    let whole = topology.with_sources(&[("A".to_owned(), "src_a".to_owned())]).unwrap();
    assert!(whole.allows("sx_app", &item, None, Insert, today()));
    assert!(!whole.allows("sx_app", &object("src_b", "items", Kind::Table), None, Select, today()));
    assert!(whole.allows("sx_app", &registry, None, Select, today()));
    assert!(!whole.allows("sx_app", &registry, None, Insert, today()));
    assert_eq!(whole.chains[0].history(), "db/source@src_a");
    // Looked at once more, it is the same; and what is gone is gone.
    assert_eq!(whole.with_sources(&[("A".to_owned(), "src_a".to_owned())]).unwrap(), whole);
    assert!(whole.with_sources(&[]).unwrap().schemas.keys().eq(["shared"]));
    let part = whole.narrowed(&BTreeSet::from(["src_a"]));
    assert_eq!(part.schemas.keys().collect::<Vec<_>>(), ["src_a"]);
    assert_eq!(part.roles["sx_app"].access.keys().collect::<Vec<_>>(), ["src_a"]);
}

#[test]
fn a_mapping_that_leads_elsewhere_grants_nothing() {
    let topology = read(SOURCES).unwrap();
    for (schema, wanted) in [
        ("shared", "is no name that the pattern src_{source} gives"),
        ("src_", "is no name that the pattern src_{source} gives"),
        ("secret", "is no name that the pattern src_{source} gives"),
        ("pg_catalog", "is reserved"),
        ("src_\"x", "is not lower-case letters"),
        ("SRC_a", "is not lower-case letters"),
    ] {
        let error = topology.with_sources(&[("x".to_owned(), schema.to_owned())]).unwrap_err();
        assert!(error.message.contains(wanted), "{schema}: {error}");
    }
    let two = [("A".to_owned(), "src_a".to_owned()), ("a".to_owned(), "src_a".to_owned())];
    let error = topology.with_sources(&two).unwrap_err();
    assert!(error.message.contains("is the source \"A\"'s already"), "{error}");
}

#[test]
fn sources_that_cannot_be_are_refused_where_they_are_declared() {
    for (from, to, wanted) in [
        ("\"shared.sources\"", "\"sources\"", "`sources` names no schema"),
        ("\"shared.sources\"", "\"core.sources\"", "the schema `core` is not declared"),
        ("roles = [\"sx_app\"]", "roles = []", "needs the `roles`"),
        ("roles = [\"sx_app\"]", "roles = [\"sx_owner\"]", "is not declared, or not for this"),
        ("roles = [\"sx_app\"]", "roles = [\"sx_app\"]\nschema = \"src\"", "around one {source}"),
        ("roles = [\"sx_app\"]", "roles = [\"sx_app\"]\nschema = \"S-{source}\"", "around one {source}"),
        ("roles = [\"sx_app\"]", "roles = [\"sx_app\"]\naccess = \"most\"", "there is no access set `most`"),
    ] {
        let error = read(&SOURCES.replace(from, to)).unwrap_err();
        assert!(error.contains(wanted), "{to}: {error}");
    }
}

#[test]
fn the_project_file_may_hold_the_declaration() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("pgrunbook.toml"), text).unwrap();
    write("[targets.main]\n");
    assert!(load(folder.path(), "default").unwrap_err().to_string().contains("declares no topology"));
    write("[targets.main]\n[topology.database]\nowner = \"o\"\n[topology.schemas]\na = {}\n");
    let topology = load(folder.path(), "default").unwrap();
    assert_eq!((topology.owner.as_str(), topology.schemas.len()), ("o", 1));
    assert_eq!(topology.source, "pgrunbook.toml");
    write("[targets.main]\n[topology.database]\nownr = \"o\"\n");
    let DeclarationError::Malformed { span: Some(span), text, .. } = load(folder.path(), "default").unwrap_err() else {
        panic!("no place is named")
    };
    assert_eq!(&text[span], "ownr");
    // Its own file wins: two declarations of one database would be one too many.
    std::fs::write(folder.path().join("topology.toml"), "[database]\nowner = \"p\"\n[schemas]\nb = {}\n").unwrap();
    assert_eq!(load(folder.path(), "default").unwrap().owner, "p");
}
