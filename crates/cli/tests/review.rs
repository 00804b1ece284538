//! Reviews of sources; no server is needed.

use std::process::Command;

use crate::place::Said;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = folder.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    fn call(&self, args: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrunbook"));
        command.args(["review", "boundary"]).args(args).current_dir(self.0.path()).env_clear();
        Said::of(command.output().unwrap())
    }
}

const GUIDE: &str = include_str!("../../../docs/guide/boundary.md");
const SAVE: &str = "\ndef save(cursor, note):\n    cursor.execute(\"UPDATE eng.notes SET body = %s\", [note])\n";
const OURS: (&str, &str) = ("apps/eng/notes.sql", "DELETE FROM eng.notes;\n");

/// The project of the guide.
fn project() -> &'static str {
    GUIDE.split("```toml\n").nth(1).unwrap().split("```").next().unwrap()
}

#[test]
fn crossing_is_shown_as_the_guide_shows_it() {
    let folder = Folder::new(&[("pgrunbook.toml", project()), ("apps/vh/save.py", SAVE), OURS]);
    let said = folder.call(&[]);
    let shown = GUIDE.split("$ pgrunbook review boundary\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!((said.code, said.out.as_str()), (Some(2), shown), "{}", said.err);
}

#[test]
fn programs_are_told_in_their_format() {
    let dynamic = "q = f\"DELETE FROM {schema}.t\"\n";
    let folder =
        Folder::new(&[("pgrunbook.toml", project()), ("apps/vh/a.py", dynamic), ("apps/vh/save.py", SAVE), OURS]);
    let json: serde_json::Value = serde_json::from_str(&folder.call(&["--format", "json"]).out).unwrap();
    let told = |at: usize| (json[at]["path"].as_str(), json[at]["line"].as_u64(), json[at]["severity"].as_str());
    assert_eq!(told(0), (Some("apps/vh/a.py"), Some(1), Some("unknown")));
    assert_eq!(told(1), (Some("apps/vh/save.py"), Some(3), Some("error")));
    let sarif: serde_json::Value = serde_json::from_str(&folder.call(&["--format", "sarif"]).out).unwrap();
    let results = &sarif["runs"][0]["results"];
    assert_eq!((results[0]["kind"].as_str(), results[0]["level"].as_str()), (Some("open"), Some("none")));
    assert_eq!((results[1]["kind"].as_str(), results[1]["level"].as_str()), (Some("fail"), Some("error")));
    let github = folder.call(&["--format", "github"]);
    assert!(github.out.contains("::error file=apps/vh/save.py,line=3,col=28,"), "{}", github.out);
    assert_eq!(github.code, Some(2));
}

#[test]
fn exit_code_tells_clean_from_unknown() {
    let clean = ("apps/vh/save.py", "q = 'UPDATE vh.notes SET body = 1'\n");
    let folder = Folder::new(&[("pgrunbook.toml", project()), clean, OURS]);
    let said = folder.call(&[]).done();
    assert_eq!(said.out, "2 trees, 2 files: 0 errors, 0 unknown, 0 notes\n");
    std::fs::write(folder.0.path().join("apps/vh/b.py"), "q = f'DELETE FROM {t}'\n").unwrap();
    assert_eq!(folder.call(&[]).code, Some(4));
    std::fs::remove_dir_all(folder.0.path().join("apps/eng")).unwrap();
    let said = folder.call(&[]);
    assert_eq!(said.code, Some(2), "{}", said.out);
    assert!(
        said.out.contains("no file of tree `eng` was read") && said.out.contains("[pgrunbook.toml:"),
        "{}",
        said.out
    );
}

#[test]
fn several_environments_need_no_choice() {
    let text = format!("{}[environments.staging]\n[environments.production]\n", project());
    let clean = ("apps/vh/save.py", "q = 'UPDATE vh.notes SET body = 1'\n");
    Folder::new(&[("pgrunbook.toml", &text), clean, OURS]).call(&[]).done();
}

#[test]
fn project_without_trees_is_told_what_to_write() {
    let said = Folder::new(&[("pgrunbook.toml", "[targets.main]\n")]).call(&[]);
    assert_eq!(said.code, Some(2));
    assert_eq!(
        said.err,
        "error: pgrunbook.toml declares no trees of code\n  help: name each application's files and schemas: [code.NAME] with `files` and `may_write`\n"
    );
}
