        if (cell->number % 2 != 0) {
            if (previous == NULL)
                list = cell->next;
            else
                previous->next = cell->next;
            free(cell);
        } else {
            previous = cell;
        }
        cell = cell->next;
    }
    return list;
}
