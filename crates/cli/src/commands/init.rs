//! `init`: a project and a first runbook, ready to run.

use serde_json::json;

use crate::app::App;
use crate::args::Output;
use crate::console::put;
use crate::exit;
use crate::failure::Failure;

const CONFIG: &str = include_str!("../../templates/pgrunbook.toml");
const RUNBOOK: &str = include_str!("../../templates/RUNBOOK.md");

pub fn init(app: &App) -> Result<u8, Failure> {
    let folder = app
        .global
        .project
        .as_ref()
        .map_or_else(|| app.surroundings.cwd.clone(), |path| app.surroundings.cwd.join(path));
    let files = [("pgrunbook.toml", CONFIG), ("RUNBOOK.md", RUNBOOK), (".gitignore", ".pgrunbook/\n")];
    if let Some((name, _)) = files.iter().take(2).find(|(name, _)| folder.join(name).exists()) {
        return Err(Failure::unusable("file", format!("{name} is there already; nothing was written"))
            .help("run it in an empty folder, or name one with --project"));
    }
    std::fs::create_dir_all(&folder)?;
    for (name, text) in files {
        let path = folder.join(name);
        if !path.exists() {
            std::fs::write(&path, text)?;
            app.say(&format!("wrote {name}"), &json!({ "type": "written", "file": name }));
        }
    }
    if app.global.format == Output::Json {
        return Ok(exit::DONE);
    }
    put("\nNext, on a throwaway server:\n");
    put("  export DATABASE_URL=$(pgrunbook sandbox up --detach --name first --format plain)");
    put("  pgrunbook plan RUNBOOK.md");
    put("  pgrunbook run RUNBOOK.md");
    put("\nEnd the server with: pgrunbook sandbox down first");
    Ok(exit::DONE)
}
