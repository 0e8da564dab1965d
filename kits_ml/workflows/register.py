"""Register the model of a finished run."""

from kits_ml.config import RegisterSettings
from kits_ml.tracking import registry


def register(settings: RegisterSettings) -> registry.Registered:
    """Registers as challenger; `promote` makes champions.

    Raises:
        InputError: no such run, or one without a model.
    """
    return registry.register(registry.model_of_run(settings.run_id), settings.model_name)
