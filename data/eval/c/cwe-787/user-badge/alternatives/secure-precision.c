    sprintf(badge, "#%d ", id);
    int used = 0;
    while (badge[used])
        used++;
    sprintf(badge + used, "%.*s", BADGE - 1 - used, name);
}
