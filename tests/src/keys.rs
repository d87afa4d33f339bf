//! `bay key`, on the data directory of a test's Bay, whether or not that runs.

use crate::bay::{Bay, bay_command};

impl Bay {
    /// Runs `bay key` with these arguments.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn key_command(&self, args: &[&str]) -> Result<String, String> {
        let ran = bay_command()
            .arg("key")
            .args(args)
            .arg("--data-dir")
            .arg(self.data_dir())
            .output()
            .expect("run bay key");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if ran.status.success() { Ok(text(&ran.stdout)) } else { Err(text(&ran.stderr)) }
    }

    /// A key of a tenant with these scopes, separated by commas.
    #[track_caller]
    pub fn key_with(&self, tenant: &str, scopes: &str) -> String {
        let made = self.key_command(&["create", "--tenant", tenant, "--scopes", scopes]);
        let said = made.unwrap_or_else(|e| panic!("bay key create --scopes {scopes}: {e}"));
        let key = said.trim().to_owned();
        assert!(key.starts_with("bay_"), "no key in {said}");
        key
    }
}
