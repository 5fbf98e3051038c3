            *link = entry->next;
            free(entry);
        }
        link = &entry->next;
    }
    return head;
}
