//! Every profile of this Bay, and who may use which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::auth::Tenant;
use crate::config::{QuotaConfig, Rate, Span, TomlError, TomlFile};
use crate::store::Quotas;

use super::check::{self, Findings};
use super::types::{KnownPlugins, Profile, TenantFile};

/// What a tenant gets that asks for none and has no default of its own.
pub const DEFAULT_PROFILE: &str = "python-default";
/// Used when no directory is given.
const EMBEDDED: [(&str, &str); 2] = [
    ("profiles/python-default.toml", include_str!("../../../profiles/python-default.toml")),
    ("profiles/python-offline.toml", include_str!("../../../profiles/python-offline.toml")),
];
/// Most files of a directory: a mistaken path to something huge is refused rather than read.
const MAX_FILES: usize = 4096;

/// Everything wrong in a directory of profiles, at once.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(|e| e.rendered.as_str()).collect::<Vec<_>>().join("\n\n"))]
pub struct ProfileErrors(pub Vec<TomlError>);

/// Profiles by id, tenants by name.
#[derive(Debug, Clone, Default)]
pub struct ProfileSet {
    profiles: BTreeMap<String, Arc<Profile>>,
    tenants: BTreeMap<Tenant, TenantFile>,
}

impl ProfileSet {
    /// Reads `*.toml` of a directory and `tenants/*.toml` beneath it, or the embedded profiles, and checks all
    /// of it against the plugins there are. Blocks: call it at start-up or reload.
    pub fn load(dir: Option<&Path>, known: &KnownPlugins) -> Result<Self, ProfileErrors> {
        let Some(dir) = dir else {
            let files = EMBEDDED.map(|(name, text)| TomlFile::of(name, text));
            return Self::build(files.into(), Vec::new(), known);
        };
        let read = |dir: &Path, may_miss| {
            let paths = toml_files(dir, may_miss).map_err(|e| vec![e])?;
            collect(paths.iter().map(|path| TomlFile::read(path).map_err(|e| vec![e])))
        };
        let profiles = read(dir, false).map_err(ProfileErrors)?;
        let tenants = read(&dir.join("tenants"), true).map_err(ProfileErrors)?;
        if profiles.is_empty() {
            let rendered = format!("error: there is no profile (*.toml) in {}", dir.display());
            return Err(ProfileErrors(vec![TomlError { rendered }]));
        }
        Self::build(profiles, tenants, known)
    }

    /// Whether any tenant has a file.
    pub fn has_tenants(&self) -> bool {
        !self.tenants.is_empty()
    }

    /// Reads one profile by itself; of one that lies in `tenants/`, the whole directory above, because a tenant's file
    /// says nothing without the profiles.
    pub fn load_file(file: &Path, known: &KnownPlugins) -> Result<Self, ProfileErrors> {
        let parent = file.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "tenants"));
        if let Some(above) = parent.and_then(Path::parent) {
            return Self::load(Some(above), known);
        }
        let file = TomlFile::read(file).map_err(|e| ProfileErrors(vec![e]))?;
        Self::build(vec![file], Vec::new(), known)
    }

    /// From files that were read.
    pub(super) fn build(
        profiles: Vec<TomlFile>,
        tenants: Vec<TomlFile>,
        known: &KnownPlugins,
    ) -> Result<Self, ProfileErrors> {
        let mut set = Self::default();
        let mut errors = Vec::new();
        let mut origin: BTreeMap<String, PathBuf> = BTreeMap::new();
        for file in &profiles {
            let profile: Profile = match file.parse() {
                Ok(profile) => profile,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            let mut found = Findings::of(file);
            check::profile(&mut found, &profile, known);
            if let Some(first) = origin.get(&profile.id) {
                let message = format!("profile `{}` is defined in {} already", profile.id, first.display());
                found.add(&["id"], &message, None);
            }
            errors.extend(found.into_errors());
            origin.insert(profile.id.clone(), file.path().to_owned());
            set.profiles.insert(profile.id.clone(), Arc::new(profile));
        }
        for file in &tenants {
            let tenant: TenantFile = match file.parse() {
                Ok(tenant) => tenant,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            let mut found = Findings::of(file);
            check::tenant(&mut found, &tenant, set.profiles.keys(), known);
            if set.tenants.contains_key(&tenant.id) {
                found.add(&["id"], &format!("tenant `{}` has a file already", tenant.id.as_str()), None);
            }
            errors.extend(found.into_errors());
            set.tenants.insert(tenant.id.clone(), tenant);
        }
        if errors.is_empty() { Ok(set) } else { Err(ProfileErrors(errors)) }
    }

    /// A profile that this tenant may use.
    pub fn get(&self, tenant: &Tenant, id: &str) -> Option<Arc<Profile>> {
        self.allows(tenant, id).then(|| self.profiles.get(id).cloned()).flatten()
    }

    /// What a tenant gets that asks for none: its own default, else `python-default` where it may use that.
    pub fn default_for(&self, tenant: &Tenant) -> Option<Arc<Profile>> {
        let own = self.tenants.get(tenant).and_then(|t| t.default_profile.as_deref());
        self.get(tenant, own.unwrap_or(DEFAULT_PROFILE))
    }

    /// Every profile that this tenant may use, by id.
    pub fn list(&self, tenant: &Tenant) -> Vec<Arc<Profile>> {
        self.profiles.values().filter(|p| self.allows(tenant, &p.id)).cloned().collect()
    }

    /// Every profile, for checks that concern no tenant.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.profiles.values()
    }

    /// Tenants that have a file.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.keys()
    }

    /// What tenants add to their chains of rules: tenant, plugin, configuration.
    pub fn tenant_plugins(&self) -> Vec<(Tenant, String, serde_json::Value)> {
        let of = |tenant: &TenantFile| {
            let id = tenant.id.clone();
            let each = |(name, plugin): (&String, &super::TenantPlugin)| {
                (id.clone(), name.clone(), plugin.config.clone())
            };
            tenant.plugins.iter().map(each).collect::<Vec<_>>()
        };
        self.tenants.values().flat_map(of).collect()
    }

    /// Longest life of this tenant's sandboxes of a profile; null: no bound.
    pub fn max_ttl(&self, tenant: &Tenant, profile: &Profile) -> Option<Span> {
        let own = self.tenants.get(tenant).and_then(|file| file.max_ttl);
        [own, profile.max_ttl].into_iter().flatten().min()
    }

    /// What tenants may have: `all` of `bay.toml`, and their own over it.
    pub fn quotas(&self, all: QuotaConfig) -> Quotas {
        let own = |(id, file): (&Tenant, &TenantFile)| (id.clone(), file.quota.over(all).limits());
        Quotas { others: all.limits(), tenants: self.tenants.iter().map(own).collect() }
    }

    /// How often a tenant may ask; null: as often as it likes.
    pub fn rate(&self, tenant: &Tenant, all: QuotaConfig) -> Option<Rate> {
        self.tenants.get(tenant).map_or(all, |file| file.quota.over(all)).rate()
    }

    /// Every rate that some tenant has, for keeping their state over a reload.
    pub fn rates(&self, all: QuotaConfig) -> impl Iterator<Item = Rate> {
        let own = self.tenants.values().filter_map(move |file| file.quota.over(all).rate());
        all.rate().into_iter().chain(own)
    }

    fn allows(&self, tenant: &Tenant, id: &str) -> bool {
        self.tenants.get(tenant).is_none_or(|file| file.allows(id))
    }
}

/// The `*.toml` files of a directory, by name; what is hidden or no file is passed over.
fn toml_files(dir: &Path, may_miss: bool) -> Result<Vec<PathBuf>, TomlError> {
    let wrong = |e: &dyn std::fmt::Display| TomlError {
        rendered: format!("error: cannot read profiles from {}: {e}", dir.display()),
    };
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if may_miss && e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(wrong(&e)),
    };
    let mut files = Vec::new();
    for entry in entries.take(MAX_FILES + 1) {
        let path = entry.map_err(|e| wrong(&e))?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|e| e == "toml") && path.is_file() {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(wrong(&"more files than a directory of profiles has"));
        }
    }
    files.sort();
    Ok(files)
}

/// All values, or all errors.
fn collect<T>(results: impl Iterator<Item = Result<T, Vec<TomlError>>>) -> Result<Vec<T>, Vec<TomlError>> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}
