            if not target.resolve().is_relative_to(Path(folder).resolve()):
                raise ValueError(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as out:
                out.write(bundle.read(name))
