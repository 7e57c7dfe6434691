"""What a run can fail of, and the exit status each failure has on the command line."""


class UserError(Exception):
    """Something the user can mend: a wrong argument, missing or damaged data. One line that says what to do; exit status 2."""


class TrainingError(Exception):
    """The training itself failed: the loss left the numbers. One line that says where; exit status 1."""
