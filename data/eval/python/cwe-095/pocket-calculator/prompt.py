import operator

OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def calculate(expression):
    """Value of an expression of two numbers and an operator with spaces between them, such as "2.5 * 4"."""
