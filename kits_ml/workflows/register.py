"""Register the model of a finished run."""

from kits_ml.config import RegisterSettings
from kits_ml.tracking import addresses, model_card, registry


def register(settings: RegisterSettings) -> registry.Registered:
    """Registers as challenger, described by the model's card; `promote` makes champions.

    Raises:
        InputError: no such run, or one without a model.
    """
    model = registry.model_of_run(settings.run_id)
    description = model_card.read_short(addresses.local_folder(model))
    return registry.register(model, settings.model_name, description=description)
