//! Components for the tests: hostile ones, and stand-ins for the defaults.

use serde_json::Value;

use crate::config::Options;

impl Options {
    /// Configures a fixture under a name of its own, or in the place of the default of that name.
    #[must_use]
    pub fn fixture(self, name: &str, component: &str, config: Value) -> Self {
        let bytes =
            bay_fixtures::bytes(component).unwrap_or_else(|| panic!("no fixture is called {component}"));
        self.plugin(name, bytes, config)
    }
}
