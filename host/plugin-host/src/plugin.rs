//! Loaded plugins: the handles that calls go through. Each call gets a fresh instance.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::abi::v0_1::adapter::Adapter;
use crate::abi::v0_1::router::{self, Router};
use crate::abi::v0_1::rules::{self, Rules};
use crate::guest::Shared;
use crate::machine::{Bounds, Performer};
use crate::plan::Grants;
use crate::{
    Admission, Call, Manifest, Outcome, PluginError, PluginFault, RouteAnswer, RouteRequest, Verdict,
};

/// A loaded plugin, by role.
#[derive(Debug, Clone)]
pub enum Plugin {
    /// Admits, denies, amends.
    Rules(Arc<RulesPlugin>),
    /// Chooses a container.
    Router(Arc<RouterPlugin>),
    /// Plans a runtime's HTTP.
    Adapter(Arc<AdapterPlugin>),
}

impl Plugin {
    /// The operator's name for it.
    pub fn name(&self) -> &str {
        &self.common().name
    }

    /// SHA-256 of the component, hex.
    pub fn digest(&self) -> &str {
        &self.common().digest
    }

    /// `rules`, `router` or `adapter`.
    pub fn role(&self) -> &'static str {
        match self {
            Self::Rules(_) => "rules",
            Self::Router(_) => "router",
            Self::Adapter(_) => "adapter",
        }
    }

    fn common(&self) -> &Common {
        match self {
            Self::Rules(p) => &p.common,
            Self::Router(p) => &p.common,
            Self::Adapter(p) => &p.common,
        }
    }
}

/// What every loaded plugin has.
pub(crate) struct Common {
    pub(crate) name: String,
    pub(crate) digest: String,
    /// JSON text: given with each call.
    pub(crate) config: String,
    pub(crate) shared: Arc<Shared>,
}

impl Common {
    fn error(&self, reason: PluginFault) -> PluginError {
        PluginError { plugin: self.name.clone(), reason }
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty),* }) => {
        $(#[$doc])*
        pub struct $name {
            pub(crate) common: Common,
            $(pub(crate) $field: $ty,)*
        }

        impl $name {
            /// The operator's name for it.
            pub fn name(&self) -> &str {
                &self.common.name
            }

            /// SHA-256 of the component, hex.
            pub fn digest(&self) -> &str {
                &self.common.digest
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // No configuration: it may hold what a log should not.
                f.debug_struct(stringify!($name))
                    .field("name", &self.common.name)
                    .field("digest", &self.common.digest)
                    .finish_non_exhaustive()
            }
        }
    };
}

handle!(
    /// A loaded rules plugin.
    RulesPlugin { guest: Rules }
);
handle!(
    /// A loaded router plugin.
    RouterPlugin { guest: Router }
);
handle!(
    /// A loaded adapter plugin.
    AdapterPlugin { guest: Adapter, manifest: Manifest, grants: Grants }
);

impl RulesPlugin {
    /// Asks for a verdict.
    pub async fn admit(&self, admission: &Admission) -> Result<Verdict, PluginError> {
        self.ask(admission).await.map_err(|fault| self.common.error(fault))
    }

    async fn ask(&self, admission: &Admission) -> Result<Verdict, PluginFault> {
        let mut place = self.common.shared.place()?;
        let (config, lowered) = (&self.common.config, rules::lower(admission));
        let asked = place
            .run(self.common.shared.options.limits.pure_timeout, None, async |store| {
                let instance = self.guest.instantiate(store).await?;
                instance.admit(store, config, &lowered).await
            })
            .await?;
        rules::lift(asked.map_err(|e| place.fault(&e))?)
    }

    /// Whether it accepts its configuration; the inner error is its own words.
    pub(crate) async fn check(&self) -> Result<Result<(), String>, PluginError> {
        let mut place = self.common.shared.place().map_err(|f| self.common.error(f))?;
        let checked = place
            .run(self.common.shared.options.limits.pure_timeout, None, async |store| {
                self.guest.instantiate(store).await?.check(store, &self.common.config).await
            })
            .await
            .map_err(|f| self.common.error(f))?;
        checked.map_err(|e| self.common.error(place.fault(&e)))
    }
}

impl RouterPlugin {
    /// Asks for a container; the answer is checked against the request.
    pub async fn route(&self, request: &RouteRequest) -> Result<RouteAnswer, PluginError> {
        self.ask(request).await.map_err(|fault| self.common.error(fault))
    }

    async fn ask(&self, request: &RouteRequest) -> Result<RouteAnswer, PluginFault> {
        let mut place = self.common.shared.place()?;
        let (config, lowered) = (&self.common.config, router::lower(request));
        let asked = place
            .run(self.common.shared.options.limits.pure_timeout, None, async |store| {
                let instance = self.guest.instantiate(store).await?;
                instance.choose(store, config, &lowered).await
            })
            .await?;
        router::lift(asked.map_err(|e| place.fault(&e))?, request)
    }

    /// Whether it accepts its configuration; the inner error is its own words.
    pub(crate) async fn check(&self) -> Result<Result<(), String>, PluginError> {
        let mut place = self.common.shared.place().map_err(|f| self.common.error(f))?;
        let checked = place
            .run(self.common.shared.options.limits.pure_timeout, None, async |store| {
                self.guest.instantiate(store).await?.check(store, &self.common.config).await
            })
            .await
            .map_err(|f| self.common.error(f))?;
        checked.map_err(|e| self.common.error(place.fault(&e)))
    }
}

impl AdapterPlugin {
    /// What it can do.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Runs one operation to its end: the guest plans, `performer` acts. Ends at `deadline`, or a moment
    /// after it where the guest is still making its answer.
    pub async fn run(
        &self,
        call: Call,
        performer: &dyn Performer,
        deadline: Instant,
    ) -> Result<Outcome, PluginError> {
        self.operate(&call, performer, deadline).await.map_err(|fault| self.common.error(fault))
    }

    async fn operate(
        &self,
        call: &Call,
        performer: &dyn Performer,
        deadline: Instant,
    ) -> Result<Outcome, PluginFault> {
        let Some(spec) = self.manifest.operation(&call.capability, &call.operation) else {
            let whole = format!("{}.{}", call.capability, call.operation);
            return Err(PluginFault::Contract(format!("its manifest has no operation `{whole}`")));
        };
        let limits = &self.common.shared.options.limits;
        let bounds = Bounds { limits, grants: &self.grants, spec, deadline };
        let mut place = self.common.shared.place()?;
        let made =
            place.run(limits.step_timeout, Some(deadline), |store| self.guest.instantiate(store)).await?;
        let instance = made.map_err(|e| place.fault(&e))?;
        crate::machine::run(&mut place, instance, call, &self.common.config, performer, &bounds).await
    }
}
