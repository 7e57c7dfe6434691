"""The errors that stop a run, with the exit status of each on the command line."""


class UserError(Exception):
    """Something the user can mend: a wrong argument, missing or damaged data. One line that says what to do; exit status 2."""


class TrainingError(Exception):
    """The training itself failed: the loss is NaN or infinite, or a device is gone. The message says where; exit status 1."""


class CommunicationError(TrainingError):
    """Devices that compute together have lost each other: one has ended, hangs, or does something else than the rest."""
