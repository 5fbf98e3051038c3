            bundle.extract(name, folder)
