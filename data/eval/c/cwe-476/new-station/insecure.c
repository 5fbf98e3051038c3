    struct station *station = malloc(sizeof *station);
    station->number = number;
    station->next = list;
    return station;
}
