        pickle.dump(argument, exchange)
        exchange.flush()
        worker(exchange.name, argument)
        with open(exchange.name, "rb") as result:
            return pickle.load(result)
