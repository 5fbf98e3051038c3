    int day = -1;
    for (; events != NULL; events = events->next)
        day = events->day;
    return day;
}
