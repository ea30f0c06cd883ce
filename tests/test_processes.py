"""Which process this is, by what torchrun, SLURM, MPI and Lightning leave in the environment."""

import os

import pytest
from lightning_fabric.utilities.rank_zero import _get_rank

from flowexp.errors import UsageError
from flowexp.processes import Place, Processes, is_first_process, several_started, training_place

MEETING = {"MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "WORLD_SIZE": "2", **MEETING}
LIGHTNING = {"LOCAL_RANK": "1", "NODE_RANK": "1", "WORLD_SIZE": "4", **MEETING}
SRUN = {
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_ID": "3",
    "SLURM_JOB_ID": "20001",
    "SLURM_STEP_NODELIST": "gpu[07-08,11]",
}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_PORT": "tcp://10.0.0.1:443"}


@pytest.fixture
def given(monkeypatch):
    """The environment of a process that has only these variables of starters."""
    kinds = ("RANK", "LOCAL_", "NODE_RANK", "GROUP_RANK", "WORLD_", "MASTER_", "SLURM_", "PMI_",
             "JSM_", "OMPI_", "MV2_", "MPI_")  # fmt: skip

    def give(variables):
        for name in [name for name in os.environ if name.startswith(kinds)]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return give


ALONE = [
    {},
    KUBERNETES,
    {"RANK": "0"},
    {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
    {"LOCAL_RANK": "0", "NODE_RANK": "0", **MEETING},
    {"RANK": "", "WORLD_SIZE": " "},
    # a shell of salloc; a script of sbatch; a step of one task in a larger allocation
    {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"},
    {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "interactive"},
    {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
    {"WORLD_SIZE": "8", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
    {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
    {"PMI_RANK": "0", "PMI_SIZE": "1"},
    {"LSB_JOBID": "5", "LSB_DJOB_RANKFILE": "/nowhere"},
]


@pytest.mark.parametrize("variables", ALONE, ids=str)
def test_a_process_without_others_is_the_first_and_does_everything(given, variables):
    given(variables)
    assert training_place(devices=1) == Place()
    # of two devices, the other process is still to be started
    assert training_place(devices=2) == Place(world_size=2)
    assert (is_first_process(), several_started()) == (True, None)
    assert Processes.start().world_size == 1
    assert not _get_rank()  # nor does Lightning stumble, when it is imported


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "place"),
    [
        (TORCHRUN, 2, 1, Place(1, 2, 1, 0, "n1", 29500, started=True)),
        (LIGHTNING, 2, 2, Place(3, 4, 1, 1, "n1", 29500, started=True)),
        (SRUN, 2, 2, Place(2, 4, 0, 1, "gpu07", 15004, started=True)),
        # torchrun within a step of SLURM
        ({**SRUN, **TORCHRUN}, 2, 1, Place(1, 2, 1, 0, "n1", 29500, started=True)),
        # mpirun within a script of sbatch
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "5",
             "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "SLURM_NODELIST": "a1,a2"},
            2, 1, Place(1, 2, 1, 0, "a1", 15005, started=True),
        ),
        # one process a pod
        ({"RANK": "1", "WORLD_SIZE": "2", **MEETING}, 1, 2,
         Place(1, 2, 0, 0, "n1", 29500, started=True)),
        # by hand, a command on each node
        ({"NODE_RANK": "1", **MEETING}, 2, 2, Place(2, 4, 0, 1)),
    ],
)  # fmt: skip
def test_a_training_on_as_many_devices_takes_the_place_that_is_said(
    given, variables, devices, nodes, place
):
    given(variables)
    assert training_place(devices=devices, nodes=nodes) == place
    assert not is_first_process()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (TORCHRUN, r"trainer\.devices: torchrun started 2 processes \(RANK=1\)"),
        ({**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"}, "torchrun started 2 processes"),
        (SRUN, "srun started 4 processes .*trainer.devices=4 trainer.strategy=ddp"),
        ({**SRUN, "SLURM_PROCID": "0"}, "srun started 4 processes"),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, "started 4 processes .*unset SLURM_PROCID"),
        ({"RANK": "1"}, "RANK=1 says .* WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not set"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1 .* are not set"),
        ({"NODE_RANK": "1"}, "NODE_RANK=1 .* are not set"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 .* RANK is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR, MASTER_PORT are not set"),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, "MASTER_ADDR, MASTER_PORT"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2", **MEETING}, "mpiexec started 2 processes"),
        ({"JSM_NAMESPACE_RANK": "3", **MEETING}, "JSM_NAMESPACE_SIZE is not set"),
        ({"RANK": "first"}, "RANK is 'first', which is no number"),
    ],
)
def test_what_contradicts_one_device_is_refused_and_the_reason_named(given, variables, said):
    given(variables)
    with pytest.raises(UsageError, match=said):
        training_place(devices=1)


@pytest.mark.parametrize(
    "variables",
    [{"RANK": "1"}, {"LOCAL_RANK": "1"}, {"WORLD_SIZE": "2"},
     {"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}],
)  # fmt: skip
def test_work_is_shared_only_with_processes_that_can_be_found(given, variables):
    given(variables)
    assert several_started()
    with pytest.raises(UsageError, match=r"says that several processes were started, but .* not"):
        Processes.start()


def test_a_rank_beyond_the_number_of_processes_is_refused(given):
    given({**TORCHRUN, "RANK": "2"})
    with pytest.raises(UsageError, match="RANK=2 is not one of 2 processes"):
        training_place(devices=2)
