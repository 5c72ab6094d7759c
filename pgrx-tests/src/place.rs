//! Where the server's programs are, where clusters may live, and as whom they run.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder that the scripts keep everything private in: `PG_CREDITS_RUN_DIR`, or else where
/// `scripts/build_private.sh` left the link `target/run`.
pub fn run_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("PG_CREDITS_RUN_DIR") {
        return dir.into();
    }
    let link = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/run");
    fs::canonicalize(&link).expect("no private server yet: run scripts/build_private.sh first")
}

/// The folder of the private server's programs: `PG_CREDITS_PG_BIN`, or else the one that was built last.
pub fn pg_bin() -> PathBuf {
    std::env::var_os("PG_CREDITS_PG_BIN").map_or_else(|| run_dir().join("bin"), PathBuf::from)
}

/// This process's own folder for clusters, made on the first call. It belongs to the user the servers run as.
pub(crate) fn clusters_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = run_dir().join("test").join(std::process::id().to_string());
        fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("cannot make {}: {error}", dir.display()));
        if am_root() {
            run(Command::new("chown").arg("postgres:").arg(&dir));
        }
        dir
    })
}

fn am_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A command run by the user that the servers belong to. PostgreSQL refuses to run as root, so root becomes `postgres`.
pub(crate) fn as_server(program: impl AsRef<OsStr>) -> Command {
    let mut command = if am_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // root's own folder may be closed to that user
    command.current_dir("/");
    for name in ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGDATA", "PGOPTIONS", "PGSERVICE"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command and returns what it printed; panics with all of it if the command fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} failed, {}\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}
