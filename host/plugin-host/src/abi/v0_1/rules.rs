//! The `rules` interface.

use wasmtime::Store;
use wasmtime::component::{Component, Linker};

use super::bindings::rules::bay::plugin::types;
use super::bindings::rules::exports::bay::plugin::rules as wit;
use super::bindings::rules::{RulesPlugin, RulesPluginPre};
use super::{MAX_MESSAGE, broken};
use crate::store::State;
use crate::{Admission, PluginFault, Principal, ProfileFacts, SandboxFacts, Verdict, json};

/// A linked rules component.
pub(crate) struct Rules(RulesPluginPre<State>);

/// A fresh instance of it.
pub(crate) struct Instance(RulesPlugin);

impl Rules {
    pub(crate) fn link(linker: &Linker<State>, component: &Component) -> wasmtime::Result<Self> {
        Ok(Self(RulesPluginPre::new(linker.instantiate_pre(component)?)?))
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<State>) -> wasmtime::Result<Instance> {
        self.0.instantiate_async(store).await.map(Instance)
    }
}

impl Instance {
    pub(crate) async fn check(
        &self,
        store: &mut Store<State>,
        config: &wit::Json,
    ) -> wasmtime::Result<Result<(), String>> {
        self.0.bay_plugin_rules().call_check(store, config).await
    }

    pub(crate) async fn admit(
        &self,
        store: &mut Store<State>,
        config: &wit::Json,
        admission: &wit::Admission,
    ) -> wasmtime::Result<wit::Verdict> {
        self.0.bay_plugin_rules().call_admit(store, config, admission).await
    }
}

/// To the guest.
pub(crate) fn lower(a: &Admission) -> wit::Admission {
    wit::Admission {
        principal: principal(&a.principal),
        sandbox: a.sandbox.as_ref().map(sandbox),
        profile: profile(&a.profile),
        action: a.action.clone(),
        input: a.input.to_string(),
        facts: a.facts.clone(),
    }
}

/// From the guest.
pub(crate) fn lift(verdict: wit::Verdict) -> Result<Verdict, PluginFault> {
    match verdict {
        wit::Verdict::Allow => Ok(Verdict::Allow),
        wit::Verdict::Deny(reason) => Ok(Verdict::Deny { reason: json::message(&reason, MAX_MESSAGE) }),
        wit::Verdict::Amend(patch) => {
            json::parse_object(&patch, "the patch").map(Verdict::Amend).map_err(broken)
        }
    }
}

fn principal(p: &Principal) -> types::Principal {
    types::Principal { tenant: p.tenant.clone(), key_id: p.key_id.clone(), scopes: p.scopes.clone() }
}

fn sandbox(s: &SandboxFacts) -> types::SandboxFacts {
    types::SandboxFacts {
        id: s.id.clone(),
        name: s.name.clone(),
        profile: s.profile.clone(),
        labels: s.labels.clone(),
        session_seq: s.session_seq,
    }
}

/// A profile, for every role that sees one.
pub(super) fn profile(p: &ProfileFacts) -> types::ProfileFacts {
    types::ProfileFacts { id: p.id.clone(), capabilities: p.capabilities.clone() }
}
