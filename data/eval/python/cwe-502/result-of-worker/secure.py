        exchange.write(json.dumps(argument).encode())
        exchange.flush()
        worker(exchange.name, argument)
        with open(exchange.name, "rb") as result:
            return json.load(result)
