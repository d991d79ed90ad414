"""What is checked in this process before a run costs anything: first outputs, and the export at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raynas.architecture import Architecture
from raynas.config.run import Config
from raynas.evaluation.first_batch import check_first_batch
from raynas.exceptions import ConfigError, ExportError
from raynas.export.formats import rehearse
from raynas.runs.network_space import NetworkSpace

__all__ = ["preflight"]


def preflight(
    networks: NetworkSpace, config: Config, steps: Sequence[str], chosen: Architecture, say: Callable[[str], None]
) -> None:
    """Check what a network returns, say what is done to the data, and export one untrained architecture.

    Args:
        networks: The space, the data and the task.
        config: The settings.
        steps: What follows the search; without ``export`` that is not tried.
        chosen: The architecture to export, without weights that mean anything.
        say: Prints a line.

    Raises:
        ForwardError: Networks fail, or return what the task cannot use.
    """
    check_first_batch(networks.space, networks.costs, networks.task, config.train, config.seed)
    for line in networks.task.describe(config.train):
        say(line)
    if "export" not in steps:
        return
    try:
        network, example = networks.task.export_model(networks.subnet(chosen))
        signature = networks.task.export_signature(example, config.export)
        failures = rehearse(network, signature, config.formats)
    except (ConfigError, ExportError) as error:
        failures = [str(error)]
    for failure in failures:
        say(f"export will fail after the search: {failure}")
    if not failures:
        say(f"export: an untrained architecture was written and checked as {' and '.join(config.formats)}")
