use super::*;
use crate::procfs::mountinfo;

const ID: &str = "06381e3d589ba0e8047d643a6e99a98a6d6242c2dfc1cc00c5427fec54ca03f8";
const OTHER: &str = "030044703ef078e23b6e91bcc8bdbe3e6f9940647f9a31467fb7c126bc059911";
const POD: &str = "6e0d1c4e-5f5a-4b7c-9e0d-2f3a4b5c6d7e";

/// `ID`, `OTHER`, `POD`, `P_D` (with underscores) stand for the values above.
fn of(file: &str) -> Result<Option<Container>, Ambiguous> {
    let file = file
        .replace("ID", ID)
        .replace("OTHER", OTHER)
        .replace("POD", POD)
        .replace("P_D", &POD.replace('-', "_"));
    Container::of(&cgroup(file.as_bytes()).unwrap())
}

/// Layouts as recorded on machines, ids apart.
#[test]
fn the_container_is_found_in_every_layout() {
    let v1 = |path: &str| {
        ["12:pids", "8:memory", "4:cpu,cpuacct", "1:name=systemd"]
            .map(|hierarchy| format!("{hierarchy}:{path}\n"))
            .concat()
    };
    let cases = [
        // Docker: v1 without systemd; hybrid; v2 by systemd; v2 by paths; in systemd of a container.
        v1("/docker/ID"),
        v1("/docker/ID") + "0::/system.slice/containerd.service\n",
        v1("/system.slice/docker-ID.scope") + "0::/\n",
        "0::/system.slice/docker-ID.scope\n".into(),
        "0::/docker/ID\n".into(),
        "0::/docker/ID/init.scope\n".into(),
        "0::/custom/parent/ID\n".into(),
        // Podman of root: by systemd, with and without a cgroup of the container's own; by
        // paths, hybrid, as recorded on the machine of these tests.
        "0::/machine.slice/libpod-ID.scope\n".into(),
        "0::/machine.slice/libpod-ID.scope/container\n".into(),
        v1("/libpod_parent/libpod-ID") + "0::/libpod_parent/libpod-ID\n",
        "0::/machine.slice/libpod-payload-ID\n".into(),
        // nerdctl, ECS.
        "0::/system.slice/nerdctl-ID.scope\n".into(),
        v1("/ecs/0123456789abcdef0123456789abcdef/ID"),
        // From inside another cgroup namespace.
        "0::/../docker-ID.scope\n".into(),
        "0::/../../machine.slice/libpod-ID.scope/container\n".into(),
    ];
    for file in cases {
        let found = of(&file).unwrap().unwrap();
        assert_eq!(found.id, ID, "{file}");
        assert_eq!(found.pod_uid, None, "{file}");
        assert!(!found.delegated, "{file}");
        assert_eq!(
            found.in_kubernetes,
            file.contains(".."),
            "{file}: a sibling of the agent may be in its pod"
        );
        for (_, path) in &found.cgroups {
            assert!(path.contains(ID) && !path.ends_with("/container"), "{path}");
        }
    }
    let rootless = "0::/user.slice/user-1000.slice/user@1000.service/user.slice/\
         libpod-ID.scope/container\n";
    let found = of(rootless).unwrap().unwrap();
    assert!(found.delegated && !found.in_kubernetes && found.id == ID);
}

#[test]
fn pods_are_found_in_every_layout() {
    let cases = [
        // containerd and CRI-O by systemd; guaranteed, burstable and best-effort pods.
        "0::/kubepods.slice/kubepods-podP_D.slice/cri-containerd-ID.scope\n",
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_D.slice/cri-containerd-ID.scope\n",
        "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podP_D.slice/crio-ID.scope/container\n",
        "11:memory:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_D.slice/docker-ID.scope\n\
         1:name=systemd:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podP_D.slice/docker-ID.scope\n0::/\n",
        // By paths.
        "11:memory:/kubepods/burstable/podPOD/ID\n1:name=systemd:/kubepods/burstable/podPOD/ID\n",
        "0::/kubepods/podPOD/ID\n",
        // containerd by paths below slices; the kubelet in a root of its own (kind).
        "0::/system.slice/kubepods-burstable-podP_D.slice:cri-containerd:ID\n",
        "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podP_D.slice/cri-containerd-ID.scope\n",
        "0::/kubelet/kubepods/besteffort/podPOD/ID\n",
        // From inside the agent's own pod's cgroup namespace.
        "0::/../../../kubepods-burstable.slice/kubepods-burstable-podP_D.slice/cri-containerd-ID.scope\n",
        "0::/../../podPOD/ID\n",
    ];
    for file in cases {
        let found = of(file).unwrap().unwrap();
        assert_eq!(
            (&*found.id, found.pod_uid.as_deref()),
            (ID, Some(POD)),
            "{file}"
        );
        assert!(found.in_kubernetes && !found.delegated, "{file}");
    }
    // A pod of a file: the UID is a hash.
    let hash = "5c1d2e3f40516273849506a7b8c9d0e1";
    let found = of(&format!("0::/kubepods/burstable/pod{hash}/ID\n"));
    assert_eq!(found.unwrap().unwrap().pod_uid.as_deref(), Some(hash));
}

#[test]
fn what_is_no_container_is_none() {
    for file in [
        "",
        "0::/\n",
        "0::/system.slice/sshd.service\n",
        "0::/user.slice/user-1000.slice/session-3.scope\n",
        // Helpers outside of the container.
        "0::/machine.slice/libpod-conmon-ID.scope\n",
        "0::/machine.slice/crio-conmon-ID.scope\n",
        // Not the digits of an id: short, long, upper case, none.
        "0::/docker/06381e3d589b\n",
        "0::/docker/IDa\n",
        "0::/docker/06381E3D589BA0E8047D643A6E99A98A6D6242C2DFC1CC00C5427FEC54CA03F8\n",
        "0::/docker/g6381e3d589ba0e8047d643a6e99a98a6d6242c2dfc1cc00c5427fec54ca03f8\n",
        "0::/evil-ID.scope\n",
        "0::/docker-ID.service\n",
        // A pod without a container.
        "0::/kubepods/burstable/podPOD\n",
    ] {
        assert_eq!(of(file).unwrap(), None, "{file}");
    }
}

#[test]
fn of_several_on_one_path_the_outermost_counts() {
    // A privileged container that makes cgroups named as another's inside of its own.
    for file in [
        "0::/docker/ID/docker/OTHER\n",
        "0::/kubepods/burstable/podPOD/ID/kubepods/pod00000000-0000-0000-0000-000000000000/OTHER\n",
        // A node of kind, seen from its host.
        "0::/system.slice/docker-ID.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podP_D.slice/cri-containerd-OTHER.scope\n",
    ] {
        assert_eq!(of(file).unwrap().unwrap().id, ID, "{file}");
    }
    let found = of("0::/docker/ID/kubepods/podPOD/OTHER\n")
        .unwrap()
        .unwrap();
    assert!(!found.in_kubernetes);
}

#[test]
fn a_container_that_holds_the_agent_too_is_the_machine() {
    let read = |file: &str| {
        let file = file
            .replace("ID", ID)
            .replace("OTHER", OTHER)
            .replace("POD", POD);
        cgroup(file.as_bytes()).unwrap()
    };
    // A node of kind on cgroup v1.
    let node = OTHER.replace('0', "f");
    let workload = read(&format!(
        "13:name=systemd:/docker/{node}/kubepods/besteffort/podPOD/ID\n\
         2:cpu:/docker/{node}/kubepods/besteffort/podPOD/ID\n\
         0::/docker/{node}/system.slice/containerd.service\n"
    ));
    let agent = read(&format!(
        "13:name=systemd:/docker/{node}/kubepods/besteffort/podPOD/OTHER\n\
         2:cpu:/docker/{node}/kubepods/besteffort/podPOD/OTHER\n\
         0::/docker/{node}/system.slice/containerd.service\n"
    ));
    let found = Container::beside(&workload, &agent).unwrap().unwrap();
    assert_eq!((&*found.id, found.pod_uid.as_deref()), (ID, Some(POD)));
    assert!(found.in_kubernetes && !found.delegated);
    // Seen from the host, and from another node, it is the node.
    for agent in [
        "0::/system.slice/agent.service\n",
        "2:cpu:/docker/OTHER/kubepods\n",
    ] {
        let found = Container::beside(&workload, &read(agent)).unwrap().unwrap();
        assert!(found.id == node && !found.in_kubernetes);
    }
    // In the agent's own container and none inside of it.
    let found = Container::beside(&agent[..1], &agent[..1])
        .unwrap()
        .unwrap();
    assert_eq!(found.id, OTHER);
}

#[test]
fn below_a_unit_cgroups_are_whoever_s() {
    for file in [
        "0::/user.slice/user-1000.slice/user@1000.service/kubepods/podPOD/ID\n",
        "0::/system.slice/ci-runner.service/kubepods.slice/kubepods-podP_D.slice/crio-ID.scope\n",
        "0::/user.slice/user-1000.slice/session-3.scope/docker/ID\n",
    ] {
        assert!(of(file).unwrap().unwrap().delegated, "{file}");
    }
    // One hierarchy that is not delegated vouches for the container.
    let both =
        "4:memory:/kubepods/podPOD/ID\n1:name=systemd:/user.slice/user@1.service/podPOD/ID\n";
    assert!(!of(both).unwrap().unwrap().delegated);
}

#[test]
fn a_pod_below_a_name_that_is_not_the_kubelet_s_is_whoever_s() {
    for file in [
        // Root in an unprivileged container of LXC, LXD and Incus, and in older ones.
        "0::/lxc.payload.c1/kubepods/podPOD/ID\n",
        "0::/lxc.payload.c1/kubepods.slice/kubepods-podP_D.slice/cri-containerd-ID.scope\n",
        "0::/lxc.payload.c1/system.slice/kubepods-burstable-podP_D.slice:cri-containerd:ID\n",
        "12:pids:/lxc/c1/kubepods/burstable/podPOD/ID\n1:name=systemd:/lxc/c1/kubepods/burstable/podPOD/ID\n",
        "0::/lxc.payload.kubepods/podPOD/ID\n",
        "0::/kubepods/lxc.payload.c1/podPOD/ID\n",
        // The same, for an agent in a cgroup namespace of its own.
        "0::/../../../../lxc.payload.c1/kubepods/podPOD/ID\n",
        "0::/../../../../lxc.payload.c1/podPOD/ID\n",
        "0::/../../../../lxc.payload.c1/cri-containerd-ID.scope\n",
        // A hierarchy that names the container and no pod does not vouch for one.
        "4:memory:/user.slice/user-1.slice/user@1.service/kubepods/podPOD/ID\n0::/lxc.payload.c1/ID\n",
    ] {
        let found = of(file).unwrap().unwrap();
        assert!(found.in_kubernetes && found.delegated, "{file}");
    }
}

#[test]
fn two_answers_are_none() {
    for file in [
        "4:memory:/docker/ID\n1:name=systemd:/docker/OTHER\n",
        "4:memory:/kubepods/podPOD/ID\n\
         1:name=systemd:/kubepods/pod00000000-0000-0000-0000-000000000000/ID\n",
    ] {
        of(file).unwrap_err();
    }
    let one = "4:memory:/docker/ID\n1:name=systemd:/kubepods/podPOD/ID\n";
    assert_eq!(of(one).unwrap().unwrap().pod_uid.as_deref(), Some(POD));
}

#[test]
fn the_agent_s_own_container_is_known_by_its_mounts() {
    // Docker 24 and Podman 4.3 in a container; a host that runs containers.
    let docker = format!(
        "1019 905 0:52 / / rw,relatime master:402 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/X\n\
         1025 1019 8:1 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/sda1 rw\n\
         1026 1019 8:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw\n"
    );
    let podman = format!(
        "79 73 254:0 /tmp/run/overlay-containers/{ID}/userdata/hosts /etc/hosts rw,relatime - ext4 /dev/vda rw\n"
    );
    let host = format!(
        "29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
         401 29 0:50 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw\n\
         402 29 0:51 / /var/lib/docker/overlay2/x/merged rw shared:9 - overlay overlay rw\n"
    );
    let of = |text: &str| own_container(&mountinfo(text.as_bytes()).unwrap());
    assert_eq!(of(&docker).as_deref(), Some(ID));
    assert_eq!(of(&podman).as_deref(), Some(ID));
    assert_eq!(of(&host), None);
    assert_eq!(of(&docker.replace(ID, "short")), None);
}
