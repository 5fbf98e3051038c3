    folder = os.path.join(base, str(os.getpid()))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    try:
        return build(folder)
    finally:
        shutil.rmtree(folder)
