//! `GET /meta`: what this container can do.

use std::collections::BTreeMap;

use bay_ship_api::WORKSPACE;
use bay_ship_api::http::{Meta, RuntimeMeta, WorkspaceMeta};
use bay_ship_api::init::Isolation;
use serde_json::{Value, json};

use super::Ship;
use crate::python::Status;

pub(super) fn meta(ship: &Ship) -> Meta {
    let mut capabilities = BTreeMap::new();
    if ship.filesystem {
        capabilities.insert("filesystem".to_owned(), filesystem());
    }
    if ship.shell.is_some() {
        capabilities.insert(
            "shell".to_owned(),
            json!({"operations": ["exec"], "endpoints": {"exec": "POST /shell/exec"}}),
        );
    }
    if let Some(python) = &ship.python {
        capabilities.insert("python".to_owned(), python_meta(&python.status()));
    }
    Meta {
        runtime: RuntimeMeta {
            name: "ship".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_version: "v1".to_owned(),
            build: option_env!("BAY_BUILD").map(str::to_owned),
        },
        workspace: WorkspaceMeta { mount_path: WORKSPACE.to_owned() },
        isolation: match ship.isolation {
            Isolation::TwoUid => "two_uid",
            Isolation::NestedPid => "nested_pid",
        }
        .to_owned(),
        capabilities,
    }
}

fn filesystem() -> Value {
    json!({
        "operations": ["read_file", "write_file", "delete_file", "list_dir", "download"],
        "path_mode": "relative",
        "endpoints": {
            "read_file": "POST /fs/read_file",
            "write_file": "POST /fs/write_file",
            "delete_file": "POST /fs/delete_file",
            "list_dir": "POST /fs/list_dir",
            "download": "GET /fs/download",
        },
    })
}

fn python_meta(status: &Status) -> Value {
    let offered = |state: &str| {
        json!({
            "operations": ["exec"], "engine": "ipython", "state": state,
            "endpoints": {"exec": "POST /ipython/exec"},
        })
    };
    match status {
        Status::Starting => offered("starting"),
        Status::Ready { kernel_seq } => {
            let mut value = offered("ready");
            value["kernel_seq"] = json!(kernel_seq);
            value
        }
        Status::Failed(why) => {
            let mut value = offered("failed");
            value["reason"] = json!(why);
            value
        }
        Status::Unavailable(why) => {
            json!({"operations": [], "engine": null, "state": "unavailable", "reason": why, "endpoints": {}})
        }
    }
}
