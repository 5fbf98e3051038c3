    os.system(f"mkdir -p {target}")
    return target
