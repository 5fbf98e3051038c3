    with open(target, "w") as out:
        out.writelines(lines)
