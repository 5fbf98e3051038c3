        struct cell *next = cell->next;
        if (cell->number % 2 != 0) {
            if (previous == NULL)
                list = next;
            else
                previous->next = next;
            free(cell);
        } else {
            previous = cell;
        }
        cell = next;
    }
    return list;
}
