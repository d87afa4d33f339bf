//! Strangers, wrong names, and what a container is allowed.

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};

use super::super::engine::Contact;
use super::super::*;
use super::harness::*;
use crate::config::{Connect, DockerConfig};
use crate::driver::PullPolicy;

async fn stranger(contact: &Contact, name: &str, labels: &[(&str, &str)]) -> String {
    let body = ContainerCreateBody {
        image: Some(image()),
        cmd: Some(vec!["true".to_owned()]),
        labels: Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    contact.docker.create_container(Some(options), body).await.unwrap().id
}

/// A running container of somebody else's in a network of ours.
async fn guest(contact: &Contact, name: &str, network: &str) -> String {
    let body = ContainerCreateBody {
        image: Some(image()),
        entrypoint: Some(vec!["sleep".to_owned(), "60".to_owned()]),
        host_config: Some(HostConfig { network_mode: Some(network.to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let id = contact.docker.create_container(Some(options), body).await.unwrap().id;
    contact.docker.start_container(&id, None).await.unwrap();
    id
}

#[tokio::test]
async fn a_strangers_container_of_our_name_is_neither_taken_nor_removed() {
    let bay = Bay::new(Connect::Socket);
    let (contact, spec) = (bay.contact().await, bay.spec("ship", Network::None));
    let id = stranger(&contact, &spec.name, &[("bay.instance", "another")]).await;
    let refused = bay.driver.create(&spec).await.unwrap_err();
    assert!(refused.to_string().contains("not Bay's"), "{refused}");
    let named = ContainerRef { name: spec.name.clone(), backend: serde_json::Value::Null };
    assert_eq!(bay.driver.inspect(&named).await.unwrap(), ContainerStatus::Missing);
    // All else of that name goes; a second time as well.
    let network = bay.network_of(&spec, Network::Internal).await;
    assert!(bay.leftovers().await.contains(&network));
    bay.driver.destroy(&named).await.unwrap();
    bay.driver.destroy(&named).await.unwrap();
    assert!(!bay.leftovers().await.contains(&network));
    assert!(bay.driver.list().await.unwrap().is_empty());
    assert!(contact.docker.inspect_container(&id, None).await.is_ok());
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    contact.docker.remove_container(&id, Some(force)).await.unwrap();
    // A label alone does not make it ours either.
    let other = format!("not-{}", spec.name);
    let id = stranger(&contact, &other, &[("bay.instance", &bay.options.instance_id)]).await;
    assert!(bay.driver.list().await.unwrap().is_empty());
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    contact.docker.remove_container(&id, Some(force)).await.unwrap();
}

#[tokio::test]
async fn a_network_that_another_session_or_a_stranger_is_in_is_kept_in_mind_and_removed_later() {
    let bay = Bay::new(Connect::Socket);
    let (contact, spec) = (bay.contact().await, bay.spec("ship", Network::Internal));
    let container = bay.driver.create(&spec).await.unwrap();
    let network = Backend::of(&container).unwrap().network.unwrap().name;
    // Called as Bay's own are, and as those of the session's tenth generation are.
    let another = spec.name.replace("-1-ship", "-10-ship");
    assert_ne!(another, spec.name);
    for name in [format!("bay-of-{}", bay.options.instance_id.to_lowercase()), another] {
        let id = guest(&contact, &name, &network).await;
        let refused = bay.driver.destroy(&container).await.unwrap_err();
        assert!(refused.to_string().contains(&network), "{name}: {refused}");
        assert!(bay.leftovers().await.contains(&network), "{name}");
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        contact.docker.remove_container(&id, Some(force)).await.unwrap();
    }
    bay.driver.destroy(&container).await.unwrap();
    let left = bay.leftovers().await;
    assert!(!left.contains(&network), "{left:?}");
}

#[tokio::test]
async fn a_network_without_its_container_is_listed_and_removed() {
    let bay = Bay::new(Connect::Socket);
    let spec = bay.spec("my-browser", Network::Internal);
    // As after a request that timed out here and not at the daemon.
    for policy in [Network::Egress, Network::Internal, Network::None] {
        bay.network_of(&spec, policy).await;
        let found = bay.driver.list().await.unwrap();
        assert_eq!(found.iter().map(|c| &c.name).collect::<Vec<_>>(), [&spec.name], "{policy:?}");
        // One that is being made has its network first.
        let done = bay.driver.inner.begin(&spec.name);
        assert!(bay.driver.list().await.unwrap().is_empty());
        bay.driver.inner.end(&spec.name, done);
        bay.driver.destroy(&found[0]).await.unwrap();
        assert!(bay.driver.list().await.unwrap().is_empty());
        assert_eq!(bay.leftovers().await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_leftover_of_ours_is_replaced() {
    let bay = Bay::new(Connect::Socket);
    let spec = bay.spec("ship", Network::None);
    let first = bay.driver.create(&spec).await.unwrap();
    let second = bay.run(&spec).await;
    assert_ne!(first.backend, second.backend);
}

#[tokio::test]
async fn what_is_not_there_is_named_with_what_to_do() {
    let bay = Bay::new(Connect::Socket);
    let mut spec = bay.spec("ship", Network::None);
    spec.docker.runtime = Some("runsc-of-nobody".to_owned());
    let error = bay.driver.create(&spec).await.unwrap_err().to_string();
    assert!(error.contains("`runsc-of-nobody`") && error.contains("runc"), "{error}");
    let mut spec = bay.spec("ship", Network::None);
    spec.image = Some("localhost:1/nobody/nothing:1".to_owned());
    for (policy, words) in [(PullPolicy::Never, "\"never\""), (PullPolicy::IfNotPresent, "cannot be fetched")]
    {
        spec.docker.pull = policy;
        let error = bay.driver.create(&spec).await.unwrap_err();
        assert!(matches!(&error, DriverError::Image { .. }) && error.to_string().contains(words), "{error}");
    }
    spec.image = None;
    assert!(matches!(bay.driver.create(&spec).await, Err(DriverError::Image { .. })));
    // What is there serves where the registry does not.
    let mut spec = bay.spec("ship", Network::None);
    spec.docker.pull = PullPolicy::Always;
    bay.run(&spec).await;
}

#[tokio::test]
async fn a_pool_without_a_subnet_says_so_and_one_given_back_is_used_again() {
    let bay = Bay::with(DockerConfig {
        host: Some(host()),
        connect: Connect::ContainerNetwork,
        subnet_pool: format!("10.222.{}.0/29", std::process::id() % 250),
        subnet_length: 29,
        ..DockerConfig::default()
    });
    let (one, other) = (bay.spec("one", Network::None), bay.spec("other", Network::None));
    let first = bay.driver.create(&one).await.unwrap();
    let error = bay.driver.create(&other).await.unwrap_err();
    assert!(matches!(&error, DriverError::Network { .. }), "{error}");
    assert!(error.to_string().contains("subnet_pool"), "{error}");
    bay.driver.destroy(&first).await.unwrap();
    let second = bay.driver.create(&other).await.unwrap();
    bay.driver.destroy(&second).await.unwrap();
    assert_eq!(bay.leftovers().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_container_has_what_it_needs_and_nothing_else() {
    for (connect, network, net_admin) in [
        (Connect::Socket, Network::None, false),
        (Connect::Socket, Network::Egress, true),
        (Connect::HostPort, Network::Egress, true),
    ] {
        let bay = Bay::new(connect);
        let container = bay.driver.create(&bay.spec("ship", network)).await.unwrap();
        let found = bay.contact().await.docker.inspect_container(&container.name, None).await.unwrap();
        let (host, config) = (found.host_config.unwrap(), found.config.unwrap());
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.privileged, Some(false));
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        let mut added: Vec<String> =
            host.cap_add.unwrap().iter().map(|c| c.trim_start_matches("CAP_").to_owned()).collect();
        added.sort();
        let expected: &[&str] = &["CHOWN", "KILL", "NET_ADMIN", "SETGID", "SETUID"];
        assert_eq!(
            added,
            if net_admin { expected.to_vec() } else { vec!["CHOWN", "KILL", "SETGID", "SETUID"] }
        );
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
        assert_eq!((host.memory, host.memory_swap), (Some(256 << 20), Some(256 << 20)));
        assert_eq!(host.pids_limit, Some(128));
        assert_eq!(host.nano_cpus, Some(1_000_000_000));
        assert_eq!(host.ipc_mode.as_deref(), Some("private"));
        assert!(host.pid_mode.unwrap_or_default().is_empty() && host.uts_mode.unwrap_or_default().is_empty());
        assert!(
            host.userns_mode.unwrap_or_default().is_empty() && host.devices.unwrap_or_default().is_empty()
        );
        for binding in host.port_bindings.unwrap_or_default().into_values().flatten().flatten() {
            assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
        }
        let mounts = found.mounts.unwrap();
        let at = |m: &bollard::models::MountPoint| m.destination.clone().unwrap();
        let bound: Vec<_> = mounts.iter().filter(|m| m.typ.as_deref() == Some("bind")).map(at).collect();
        assert_eq!(bound, if connect == Connect::Socket { vec!["/.bay-socket"] } else { vec![] });
        let mut writable: Vec<_> = mounts.iter().filter(|m| m.rw == Some(true)).map(at).collect();
        writable.retain(|at| at != "/.bay-socket");
        writable.sort();
        assert_eq!(writable, ["/.bay/spool", "/workspace"]);
        assert_eq!(config.user.as_deref(), Some("0:0"));
        let env = config.env.unwrap();
        assert_eq!(env.iter().filter(|v| v.contains('=')).count(), 1, "{env:?}");
        assert_eq!(config.open_stdin.zip(config.stdin_once), Some((true, true)));
        bay.driver.destroy(&container).await.unwrap();
    }
}
