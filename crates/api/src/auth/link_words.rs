//! What the pages of mailed links, and of sign-ins that went astray, say, to browsers of each language.
use crate::mail::Locale;

pub struct Words {
    pub press: &'static str,
    pub go_on: &'static str,
    pub go_back: &'static str,
    pub done: &'static str,
    pub confirmed: &'static str,
    pub undone: &'static str,
    /// Of two addresses, one has confirmed.
    pub halfway: &'static str,
    pub nowhere: &'static str,
    pub ask_again: &'static str,
    pub sign_in_nowhere: &'static str,
    pub sign_in_again: &'static str,
    /// By the type of a link; the last is that of any other.
    titles: [(&'static str, &'static str); 6],
}

impl Words {
    pub fn of(locale: Locale) -> &'static Self {
        match locale {
            Locale::En => &EN,
            Locale::De => &DE,
        }
    }

    /// What a link of this type does.
    pub fn title(&self, kind: &str) -> &'static str {
        let mut titles = self.titles.iter();
        let [.., (_, any)] = self.titles;
        titles
            .find(|(other, _)| *other == kind)
            .map_or(any, |(_, title)| title)
    }
}

const EN: Words = Words {
    press: "Press the button to go on. If you did not ask for this mail, close the page: nothing happens.",
    go_on: "Continue",
    go_back: "Go back",
    done: "Done",
    confirmed: "Your address is confirmed. Go back to the app, and sign in where it asks you to.",
    halfway: "That is confirmed. Your address changes once the link that was sent to the other address is followed too.",
    undone: "Your address is as it was, nobody is signed in any more, and what was added to the account since is gone: passkeys, second factors, linked sign-ins. Choose a new password if somebody else may know yours.",
    nowhere: "This link leads nowhere any more",
    ask_again: "This link was used already, or is too old. Ask for another mail where you asked for this one; only the newest counts.",
    sign_in_nowhere: "This sign-in leads nowhere any more",
    sign_in_again: "It began in another browser, was finished already, or took longer than ten minutes. Go back to where you came from, and sign in again.",
    titles: [
        ("recovery", "Choose a new password"),
        ("magiclink", "Sign in"),
        ("invite", "You are invited"),
        ("email_change", "Confirm the change of your address"),
        ("email_change_undo", "Take your address back"),
        ("signup", "Confirm your address"),
    ],
};

const DE: Words = Words {
    press: "Drück auf den Knopf, um fortzufahren. Wenn du diese Mail nicht angefordert hast, schließ die Seite: Es geschieht nichts.",
    go_on: "Weiter",
    go_back: "Zurück",
    done: "Fertig",
    confirmed: "Deine Adresse ist bestätigt. Geh zurück zur App und melde dich dort an, wo sie danach fragt.",
    halfway: "Das ist bestätigt. Deine Adresse wechselt, sobald auch der Link bestätigt ist, der an die andere Adresse ging.",
    undone: "Deine Adresse ist wie zuvor, niemand ist mehr angemeldet, und was seither zum Konto hinzukam, ist entfernt: Passkeys, zweite Faktoren, verknüpfte Anmeldungen. Wähle ein neues Passwort, falls jemand anderes deines kennen könnte.",
    nowhere: "Dieser Link führt nirgends mehr hin",
    ask_again: "Dieser Link wurde schon benutzt oder ist zu alt. Fordere dort eine neue Mail an, wo du diese angefordert hast; nur die neueste gilt.",
    sign_in_nowhere: "Diese Anmeldung führt nirgends mehr hin",
    sign_in_again: "Sie begann in einem anderen Browser, ist schon abgeschlossen oder hat länger als zehn Minuten gedauert. Geh dorthin zurück, woher du kamst, und melde dich neu an.",
    titles: [
        ("recovery", "Wähle ein neues Passwort"),
        ("magiclink", "Anmelden"),
        ("invite", "Du bist eingeladen"),
        ("email_change", "Bestätige den Wechsel deiner Adresse"),
        ("email_change_undo", "Hol deine Adresse zurück"),
        ("signup", "Bestätige deine Adresse"),
    ],
};
