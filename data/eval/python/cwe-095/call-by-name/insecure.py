    return eval(f"math.{name}({x})")
