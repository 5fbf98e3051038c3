            free(entry);
            *link = entry->next;
        } else {
            link = &entry->next;
        }
    }
    return head;
}
