    struct station *station = malloc(sizeof *station);
    if (station == NULL)
        return list;
    station->number = number;
    station->next = list;
    return station;
}
